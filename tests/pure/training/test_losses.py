"""Losses against numbers worked by hand, and against the closed form of their optimum."""

import itertools
import math

import pytest
import torch

from core.objectives import Dpo, Entropy, Gce, Kd, Kto, Sft, Sharpen
from tests.pure.training.tabular import minimized, responses, sums
from training.learner.tokens import Tokens
from training.objectives.dpo import dpo
from training.objectives.entropy import entropy
from training.objectives.gce import gce
from training.objectives.kd import divergence, kd
from training.objectives.kto import kto
from training.objectives.sft import sft
from training.objectives.sharpen import sharpen

BASE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def of(*probabilities: float) -> torch.Tensor:
    """Logits of a target with each of these probabilities, float[N, 2]; the target is 0."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def targets(logits: torch.Tensor) -> Tokens:
    made = responses(logits[0], [[0]] * len(logits))
    made.logits_NV = logits
    return made


# --- pairs ---


def test_dpo_with_an_nll_term_is_the_loss_of_scpo() -> None:
    pair = sums([[-12.0, -20.0]], [[-13.0, -19.5]], tokens=6)
    pair.weight_E = pair.weight_E * 0.5
    assert dpo(pair, Dpo(beta=0.5)).item() == pytest.approx(0.1934, abs=1e-4)
    assert dpo(pair, Dpo(beta=0.5, nll=1.0)).item() == pytest.approx(1.1934, abs=1e-4)
    start = sums([[-13.0, -19.5]], [[-13.0, -19.5]], tokens=6)
    assert dpo(start, Dpo(beta=0.5)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("won", "plain", "bold"), [(True, 0.6210, 0.0210), (False, 0.7710, 0.1710)])
def test_the_optimism_of_xpo_is_on_the_row_that_the_reference_sampled(won: bool, plain: float, bold: float) -> None:
    current, reference = ([-10.0, -12.0], [-11.0, -11.5]) if won else ([-12.0, -10.0], [-11.5, -11.0])
    pair = sums([current], [reference], marked=[[not won, won]])
    assert dpo(pair, Dpo(beta=0.1)).item() == pytest.approx(plain, abs=1e-4)
    assert dpo(pair, Dpo(beta=0.1, optimism=0.05)).item() == pytest.approx(bold, abs=1e-4)


def test_the_optimism_adds_its_weight_to_the_gradient_of_the_marked_row_only() -> None:
    found = []
    for optimism in (0.0, 0.05):
        pair = sums([[-10.0, -12.0]], [[-11.0, -11.5]], marked=[[False, True]])
        dpo(pair, Dpo(beta=0.1, optimism=optimism)).backward()
        assert pair.current_N.grad is not None
        found.append(pair.current_N.grad.tolist())
    assert found[0] == pytest.approx([-0.0463, 0.0463], abs=1e-4)
    assert found[1] == pytest.approx([-0.0463, 0.0963], abs=1e-4)


@pytest.mark.parametrize(("beta", "best"), [(0.5, 0.8571), (1.0, 0.6667)])
def test_dpo_on_preferences_of_a_known_strength_reaches_the_bandits_optimum(beta: float, best: float) -> None:
    """p(0 beats 1) = .75 under a reference of (.4, .6)."""
    reference = torch.tensor([0.4, 0.6], dtype=torch.float64).log()

    def loss(theta: torch.Tensor) -> torch.Tensor:
        pairs = responses(theta, [[0, 1], [1, 0]], reference)
        pairs.weight_E = torch.tensor([0.75, 0.25], dtype=torch.float64)
        return dpo(pairs, Dpo(beta=beta))

    assert minimized(loss, 2)[0].item() == pytest.approx(best, abs=1e-3)


def test_the_square_form_aims_at_a_margin() -> None:
    reference = torch.tensor([0.5, 0.5], dtype=torch.float64).log()

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return dpo(responses(theta, [[0, 1]], reference), Dpo(beta=0.5, loss="square"))

    assert minimized(loss, 2)[0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)  # margin 1 / (2 beta) = 1


# --- sharpening ---


@pytest.mark.parametrize(
    ("beta", "sharp"),
    [(1.0, (0.6579, 0.2368, 0.1053)), (0.5, (0.7812, 0.1687, 0.05)), (0.25, (0.9191, 0.0715, 0.0094))],
)
def test_sharpening_reaches_the_base_to_the_power_of_one_plus_one_over_beta(beta: float, sharp: tuple) -> None:
    pairs = list(itertools.combinations(range(3), 2))
    reached = minimized(lambda theta: sharpen(responses(theta, pairs, BASE.log(), BASE.log()), Sharpen(beta=beta)), 3)
    power = BASE ** (1 + 1 / beta)
    assert reached.tolist() == pytest.approx((power / power.sum()).tolist(), abs=1e-3)
    assert reached.tolist() == pytest.approx(sharp, abs=1e-3)


def test_sharpening_of_shuffled_rewards_does_not_sharpen() -> None:
    """The null control: rewards of other responses lead elsewhere."""
    pairs = list(itertools.combinations(range(3), 2))
    shuffled = BASE.log()[[2, 0, 1]]
    reached = minimized(lambda theta: sharpen(responses(theta, pairs, BASE.log(), shuffled), Sharpen()), 3)
    assert reached[0] < BASE[0]


def test_sharpening_sums_worked_by_hand() -> None:
    start = BASE.log().clone().requires_grad_()
    losses = [
        sharpen(responses(start, [pair], BASE.log(), BASE.log()), Sharpen(beta=0.5)).item()
        for pair in ((0, 1), (0, 2), (1, 2))
    ]
    assert losses == pytest.approx([0.2609, 0.8396, 0.1644], abs=1e-4)
    one = responses(start, [[1, 0]], BASE.log(), BASE.log(), marked=[[False, True]])
    bold = sharpen(one, Sharpen(beta=0.5, optimism=0.1)).item()
    assert bold == pytest.approx(0.2609 + 0.1 * math.log(0.5), abs=1e-4)  # a plus before the square: .1916
    clipped = sharpen(responses(start, [[0, 2]], BASE.log(), BASE.log()), Sharpen(beta=0.5, clip=0.5)).item()
    assert clipped == pytest.approx(0.25)


def test_the_optimism_of_sharpening_moves_mass_to_what_no_pair_holds() -> None:
    theta = BASE.log().clone().requires_grad_()
    grown = []
    for optimism in (0.0, 0.1):
        pair = responses(theta, [[0, 1]], BASE.log(), BASE.log(), marked=[[False, True]])
        (gradient,) = torch.autograd.grad(sharpen(pair, Sharpen(optimism=optimism)), theta)
        change = -0.1 * gradient
        grown.append((change[2] - (change[0] + change[1]) / 2).item())
    assert grown == pytest.approx([0.0, 1.5 * 0.1 * 0.1 * 0.2], abs=1e-9)


# --- single rows ---


def test_kto_pulls_wanted_rows_up_and_unwanted_ones_down() -> None:
    rows = sums([[-10.0], [-10.0]], [[-12.0], [-12.0]], advantage=[[1.0], [-1.0]])
    value = 1 / (1 + math.exp(-0.2))
    assert kto(rows, Kto(beta=0.1, unwanted=0.5)).item() == pytest.approx((1 - value) + 0.5 * value)
    kto(rows, Kto(beta=0.1)).backward()
    assert rows.current_N.grad is not None
    up, down = rows.current_N.grad.tolist()
    assert up < 0 < down and up == pytest.approx(-down)


@pytest.mark.parametrize(
    ("q", "losses"),
    [(0.8, (0.1010, 0.5321, 1.0519)), (0.5, (0.1026, 0.5858, 1.3675)), (1.0, (0.1, 0.5, 0.9))],
)
def test_generalized_cross_entropy_worked_by_hand(q: float, losses: tuple[float, ...]) -> None:
    found = [gce(targets(of(p)), Gce(q=q)).item() for p in (0.9, 0.5, 0.1)]
    assert found == pytest.approx(losses, abs=1e-4)


def test_generalized_cross_entropy_tends_to_cross_entropy_and_pulls_less_where_p_is_small() -> None:
    logits = of(0.9, 0.5, 0.1)
    assert gce(targets(logits), Gce(q=1e-6)).item() == pytest.approx(sft(targets(logits), Sft()).item(), abs=1e-4)
    for p, ratio in ((0.9, 0.9192), (0.5, 0.5743), (0.1, 0.1585)):
        one = of(p).requires_grad_()
        (robust,) = torch.autograd.grad(gce(targets(one), Gce(q=0.8)), one)
        (plain,) = torch.autograd.grad(sft(targets(one), Sft()), one)
        assert (robust[0, 0] / plain[0, 0]).item() == pytest.approx(ratio, abs=1e-4)
    likeliest = gce(targets(of(0.1)), Gce(q=0.8, targets="argmax")).item()
    assert likeliest == pytest.approx(0.1010, abs=1e-4)


def test_entropy_and_its_gradient_worked_by_hand() -> None:
    logits = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log().requires_grad_()
    made = targets(logits)
    loss = entropy(made, Entropy())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0.8018, abs=1e-4)
    assert gradient[0].tolist() == pytest.approx([-0.3116, 0.1615, 0.1501], abs=1e-4)


def test_distillation_worked_by_hand() -> None:
    teacher = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    target = torch.tensor([[0.8, 0.15, 0.05]], dtype=torch.float64)
    for student, difficulty, hard, plain in (
        ([0.2, 0.5, 0.3], 0.8389, 0.1104, 0.3961),
        ([0.58, 0.3, 0.12], 0.1095, None, 0.0021),
    ):
        student_NV = torch.tensor([student], dtype=torch.float64)
        assert divergence(target, student_NV).item() == pytest.approx(difficulty, abs=1e-4)
        made = targets(student_NV.log())
        made.teacher = lambda: teacher.log()
        assert kd(made, Kd(hard=0.0)).item() == pytest.approx(plain, abs=1e-4)
        if hard is not None:
            assert kd(made, Kd(hard=1.0)).item() == pytest.approx(hard, abs=1e-4)


def test_a_divergence_is_never_below_0() -> None:
    torch.manual_seed(0)
    p, q = torch.softmax(torch.randn(200, 7) * 4, -1), torch.softmax(torch.randn(200, 7) * 4, -1)
    assert divergence(p, q).min() >= -1e-6 and divergence(p, p).abs().max() < 1e-6
