"""Encoded outcomes, from collector to store: encoded once, and equal to the outcome in all decisions."""

import pickle
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import ArtifactError
from core.messages import Outcome, PolicyRef, Vote
from core.store.encoded import encode_outcome, encode_outcomes
from core.store.records import outcome_records
from core.store.writer import RunReader
from tests.pure.actors.replay.test_buffer import FlakyStore, explored, leased, started


def with_votes(outcome: Outcome) -> Outcome:
    votes = [
        Vote(id=f"v{i}", prompt_id=outcome.prompt_id, by=by) for i, by in enumerate(("sample", "sample", "person"))
    ]
    return outcome.model_copy(update={"votes": tuple(votes)})


def test_an_encoded_outcome_says_what_its_outcome_says_and_holds_its_rows() -> None:
    outcome = with_votes(explored(3, "lease", version=2))
    encoded = encode_outcome(outcome)
    assert (encoded.place, encoded.lease_id, encoded.version, encoded.candidates) == (3, "lease", 2, 1)
    assert encoded.votes == {"sample": 2, "person": 1} and encoded.shares == (1.0,)
    assert encoded.group_ids == outcome.named_ids == (outcome.scored[0].group.id,)
    assert encoded.examples == outcome.examples and list(encoded.rows) == outcome_records(outcome)
    assert pickle.loads(pickle.dumps(encode_outcomes([outcome]))) == [encoded]


def test_an_example_that_stands_twice_is_one() -> None:
    outcome = explored(0, "lease")
    twice = encode_outcome(outcome.model_copy(update={"examples": outcome.examples * 2}))
    assert twice.examples == outcome.examples


def test_an_outcome_is_as_old_as_the_oldest_version_in_it() -> None:
    outcome = explored(0, "lease", version=5)
    older = outcome.examples[0].model_copy(update={"policy": PolicyRef(version=3)})
    assert outcome.version == 5 and outcome.model_copy(update={"examples": (older,)}).version == 3
    assert Outcome(lease_id="l", place=0, prompt_id="p", failure="none").version == 0


async def test_rows_rest_as_they_travelled(tmp_path: Path) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    lease = leased(await buffer.collectors.lease(1, 0.0))
    outcome = with_votes(explored(lease.places[0], lease.id))
    assert await buffer.collectors.deliver(encode_outcomes([outcome])) == ["accepted"]
    with closing(RunReader(tmp_path)) as reader:
        assert all(reader.has(row) for row in outcome_records(outcome))
        assert not reader.has(("outcomes", "0", "", b"another"))


async def test_an_encoded_outcome_whose_example_cannot_be_read_is_refused_and_its_lease_runs_on(tmp_path: Path) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    lease = leased(await buffer.collectors.lease(1, 0.0))
    good = encode_outcome(explored(lease.places[0], lease.id))
    rows = tuple((t, id, parent, b"c" if t == "examples" else body) for t, id, parent, body in good.rows)
    with pytest.raises(ArtifactError):
        await buffer.collectors.deliver([good.model_copy(update={"rows": rows})])
    assert await buffer.collectors.deliver([good]) == ["accepted"]
