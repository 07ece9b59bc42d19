"""Outcomes for the tests of buffer and store."""

from core.codec import pack_ids
from core.messages import Candidate, Group, Outcome, PolicyRef, Scored, Verdict
from methods.data.prompts import as_prompt
from tests.pure.examples import imitate


def explored(place: int, lease_id: str, version: int = 0, kind: str = "accepted", prompt: str = "") -> Outcome:
    if kind == "failed":
        return Outcome(lease_id=lease_id, place=place, prompt_id="", failure="the policy is away")
    ref, name = PolicyRef(version=version), f"{place}-{lease_id}"
    asked = as_prompt(prompt or f"prompt {place}")
    candidate = Candidate(
        id=f"c{name}",
        start=ref,
        end=ref,
        context_ids=b"",
        completion_ids=pack_ids([place + 1]),
        text="The answer is 1.",
        finish="stop",
        render_id="r",
    )
    group = Group(id=f"g{name}", prompt=asked, candidates=(candidate,))
    verdict = Verdict(scores=(1.0,), answers=("1",), winner="1", share=1, margin=1)
    example = imitate(f"e{name}", b"", candidate.completion_ids, group_id=group.id, policy=ref)
    return Outcome(
        lease_id=lease_id,
        place=place,
        prompt_id=asked.id,
        scored=(Scored(group=group, verdict=verdict),),
        examples=(example,) if kind == "accepted" else (),
        tokens=1,
        sampled_ids=(group.id,),
    )
