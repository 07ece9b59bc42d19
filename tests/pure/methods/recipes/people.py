"""What the tests of recipes that people teach share."""

from core import config as configuration
from core.codec import pack_ids, unpack_ids
from core.messages import Candidate, Compared, Finish, Group, PolicyRef, Prompt, Row, Vote
from core.protocols import Method
from methods import recipes
from methods.data.prompts import as_prompt

PROMPT = as_prompt("What is 2 and 3?")


def built(name: str, *more: str) -> Method:
    config = configuration.load(None, [f"method.recipe={name}", "report.questions=null", *more])
    return recipes.build(config.method)


def candidate(name: str, text: str, version: int = 3, finish: Finish = "stop") -> Candidate:
    ref = PolicyRef(version=version)
    return Candidate(
        id=name,
        start=ref,
        end=ref,
        context_ids=pack_ids(PROMPT.messages[-1].content.encode()),
        completion_ids=pack_ids([*text.encode(), 0]),
        text=text,
        finish=finish,
        render_id="r",
    )


def group(
    *texts: str, version: int = 3, fixed: bool = False, prompt: Prompt = PROMPT, finish: Finish = "stop"
) -> Group:
    candidates = tuple(candidate(f"{version}-{i}", text, version, finish) for i, text in enumerate(texts))
    return Group(id=f"g{version}{fixed}", prompt=prompt, candidates=candidates, fixed=fixed)


def vote(voter: str, **said: object) -> Vote:
    about = {"id": f"v-{voter}", "prompt_id": PROMPT.id, "by": "person", "voter": voter, "cast_at": 1.0}
    return Vote.model_validate({**about, **said})


def compared(voter: str, better: str, worse: str, versions: tuple[int, int] = (3, 3)) -> Vote:
    first, second = (PolicyRef(version=version) for version in versions)
    return vote(voter, answer=better, pair=(Compared(text=better, by=first), Compared(text=worse, by=second)))


def learned(row: Row) -> str:
    """The text of the row's targets, of a candidate made here."""
    return bytes(id for id in unpack_ids(row.token_ids)[-row.targets :] if id).decode()
