import pytest
import torch

from core.errors import ConfigError
from core.objectives import Kd
from tests.pure.methods.recipes.texts import built, group, learned, settled
from tests.pure.training.tabular import responses
from training.objectives import check
from training.objectives.kd import divergence, kd

TEACHER = [0.6, 0.3, 0.1]


def loss(student: torch.Tensor, objective: Kd, target: int) -> torch.Tensor:
    made = responses(student, [[target]])
    made.teacher = lambda: torch.tensor([TEACHER], dtype=torch.float64).log()
    return kd(made, objective)


def objective_of(*overrides: str) -> Kd:
    objective = built("kd_self", *overrides).objective
    assert isinstance(objective, Kd)
    return objective


def pull(objective: Kd, target: int) -> float:
    """How much a step from the teacher's own distribution raises the logit of the target."""
    student = torch.tensor(TEACHER, dtype=torch.float64).log().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, objective, target), student)
    return -gradient[target].item()


def test_winning_texts_are_the_rows() -> None:
    texts = ["a The answer is 7.", "b The answer is 7.", "The answer is 9."]
    method = built("kd_self")
    assert learned(settled(method, group(*texts))) == dict.fromkeys(texts[:2], 1.0)
    assert check(method).needs == ("reference_logits",)


def test_help_at_hard_tokens_is_no_worse_than_the_mixture_of_both_losses() -> None:
    """By convexity. So it lowers the loss wherever the student is further from the teacher than the target is."""
    torch.manual_seed(0)
    for target in (0, 1, 2):
        teacher = torch.tensor([TEACHER], dtype=torch.float64)
        aim = 0.5 * teacher + 0.5 * torch.eye(3, dtype=torch.float64)[target]
        aim_loss = divergence(teacher, aim).item()
        for _ in range(50):
            student = 2 * torch.randn(3, dtype=torch.float64)
            helped, plain = (loss(student, Kd(hard=hard), target).item() for hard in (1.0, 0.0))
            assert helped <= 0.7 * plain + 0.3 * aim_loss + 1e-12
            assert helped < plain or plain < aim_loss


def test_a_hard_token_worked_by_hand() -> None:
    student = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    assert loss(student, Kd(hard=1.0), 0).item() == pytest.approx(0.1104, abs=1e-4)
    assert loss(student, Kd(hard=0.0), 0).item() == pytest.approx(0.3961, abs=1e-4)


def test_from_the_teacher_itself_a_step_leads_away_from_the_winning_token() -> None:
    """The warning: the target is given at hard tokens, so that less of it is left to learn."""
    hard = Kd(hard=1.0)
    assert all(pull(hard, target) < 0 for target in (0, 1, 2))
    best = [(p - 0.3 * (0.5 * (token == 0) + 0.5 * p)) / 0.7 for token, p in enumerate(TEACHER)]
    assert best[0] == pytest.approx(0.5143, abs=1e-4) and sum(best) == pytest.approx(1)
    assert loss(torch.tensor(best, dtype=torch.float64).log(), hard, 0).item() == pytest.approx(0, abs=1e-9)


def test_the_null_control_does_not_see_which_text_won() -> None:
    without = objective_of("method.options.kd.hard=0")
    assert without.hard == 0
    student = torch.tensor([0.1, 1.0, -0.3], dtype=torch.float64)
    assert len({loss(student, without, target).item() for target in (0, 1, 2)}) == 1
    assert pull(without, 0) == pytest.approx(0, abs=1e-12)
    assert len({loss(student, Kd(hard=1.0), target).item() for target in (0, 1, 2)}) == 3


def test_it_needs_different_samples() -> None:
    with pytest.raises(ConfigError, match="recipe kd_self needs different samples to vote"):
        built("kd_self", "method.sampler.n=1")
