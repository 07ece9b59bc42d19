"""Self-Evolution KD: distillation with help at hard tokens (2024, arXiv 2412.15303), variant kd-self.

    target = blend onehot(y) + (1 - blend) teacher          difficulty = KL(target || student)
    hard: the 30% of a forward's tokens with the greatest difficulty; there student := .7 student + .3 target
    loss = mean over tokens of KL(teacher || student)

y are the winning texts of a vote; the teacher is the base model.

Why it works: where the student is far from both, a part of the target in its place shortens the way.
Precondition: a teacher that is better than the student. Supervision: teacher. The base model is no better than its own
start, so this variant only holds the policy near the base, on the texts that win.
Warning: the target at hard tokens is given, not learned. The least loss there is at student = (teacher - .3 target) /
.7, which has less of y than the teacher has. From a student that equals the teacher it thus steps away from the vote.
Predicted effect: none, or a small loss.

Deviation: known from the paper's abstract and a summary; all numbers are ours (the paper's are unverified). Its y are
given texts of a task, translation, and its teacher is another model.
Null control: without hard tokens the vote's texts are only the place where the base is copied.
"""

from core.objectives import Kd
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "Self-Evolution KD, from the base model",
    "arXiv 2412.15303",
    "teacher",
    "1",
    "plumbing",
    control="method.options.kd.hard=0",
)


class Settings(Voting):
    kd: Kd = Kd()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("kd_self", shared.sampler)
    return Method(
        name="kd_self",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Winners("kd_self", settings.max_winners),
        objective=settings.kd,
    )
