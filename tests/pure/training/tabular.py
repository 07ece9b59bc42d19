"""Forwards of a policy over a few one-token responses, to hold losses against numbers and closed forms."""

from collections.abc import Sequence

import torch

from training.learner.tokens import Tokens


def responses(
    theta: torch.Tensor,
    rows: Sequence[Sequence[int]],
    reference: torch.Tensor | None = None,
    rewards: torch.Tensor | None = None,
    marked: Sequence[Sequence[bool]] | None = None,
) -> Tokens:
    """`theta`: logits float[V] of the responses. `rows`: the responses of each example. `reference`: log-probabilities
    float[V]. `rewards`: the advantage of each response. `marked`: the rows with the column `optimism`."""
    flat = torch.tensor([place for example in rows for place in example])
    many, each = len(flat), len(rows[0])
    columns = {} if reference is None else {"reference": reference[flat]}
    if marked is not None:
        columns["optimism"] = torch.tensor([one for example in marked for one in example], dtype=theta.dtype)
    return Tokens(
        logits_NV=theta.expand(many, -1),
        targets_N=flat,
        weight_N=torch.ones(many, dtype=theta.dtype),
        advantage_N=torch.zeros(many, dtype=theta.dtype) if rewards is None else rewards[flat],
        kl_N=torch.ones(many, dtype=theta.dtype),
        row_N=torch.arange(many),
        rows_EK=torch.arange(many).reshape(-1, each),
        weight_E=torch.ones(len(rows), dtype=theta.dtype),
        columns=columns,
    )


def sums(
    current: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]],
    tokens: int = 1,
    marked: Sequence[Sequence[bool]] | None = None,
    advantage: Sequence[Sequence[float]] | None = None,
) -> Tokens:
    """Examples with these log-probabilities of their rows, spread evenly over `tokens` tokens each."""

    def spread(values: Sequence[Sequence[float]]) -> torch.Tensor:
        return torch.tensor([v / tokens for example in values for v in example], dtype=torch.float64).repeat_interleave(
            tokens
        )

    rows, each = sum(map(len, current)), len(current[0])
    columns = {"reference": spread(reference)}
    if marked is not None:
        columns["optimism"] = spread([[tokens * float(one) for one in example] for example in marked])
    given = advantage or [[0.0] * each for _ in current]
    made = Tokens(
        logits_NV=torch.zeros(rows * tokens, 1),
        targets_N=torch.zeros(rows * tokens, dtype=torch.long),
        weight_N=torch.ones(rows * tokens, dtype=torch.float64),
        advantage_N=spread([[tokens * one for one in example] for example in given]),
        kl_N=torch.ones(rows * tokens, dtype=torch.float64),
        row_N=torch.arange(rows).repeat_interleave(tokens),
        rows_EK=torch.arange(rows).reshape(-1, each),
        weight_E=torch.ones(len(current), dtype=torch.float64),
        columns=columns,
    )
    made.__dict__["current_N"] = spread(current).requires_grad_()
    return made


def minimized(loss, size: int, steps: int = 200) -> torch.Tensor:
    """The probabilities float[V] at which `loss(theta)` is least."""
    theta = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], lr=0.5, max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(theta)
        value.backward()
        return value

    optimizer.step(closure)
    return torch.softmax(theta.detach(), 0)
