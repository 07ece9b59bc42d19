import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.codec import (
    decode,
    decode_batch,
    encode,
    encode_batch,
    pack_floats,
    pack_ids,
    stable_id,
    unpack_floats,
    unpack_ids,
)
from core.errors import ArtifactError
from core.messages import (
    BASE,
    KINDS,
    Candidate,
    ChatMessage,
    Event,
    Example,
    Group,
    Outcome,
    PolicyRef,
    Prompt,
    Scored,
    Verdict,
    Vote,
)
from tests.pure.examples import imitate, prefer, reinforce


def candidate(name: str = "c", version: int = 0, ids: tuple[int, ...] = (1, 2, 0)) -> Candidate:
    ref = PolicyRef(version=version)
    packed = pack_ids(ids)
    return Candidate(
        id=name, start=ref, end=ref, context_ids=b"", completion_ids=packed, text="t", finish="stop", render_id="r"
    )


def group(*candidates: Candidate) -> Group:
    prompt = Prompt(id="p", messages=(ChatMessage(role="user", content="q" * 400),))
    return Group(id="g", prompt=prompt, candidates=candidates)


def outcome() -> Outcome:
    verdict = Verdict(scores=(1.0,), answers=("5",), winner="5", share=0.5, margin=0.25)
    example = imitate("e", b"", b"\x01\0\0\0")
    return Outcome(
        lease_id="l",
        place=3,
        prompt_id="p",
        scored=(Scored(group=group(candidate()), verdict=verdict),),
        votes=(Vote(id="v", prompt_id="p", answer="5"),),
        examples=(example,),
        drops={"low_share": 1},
    )


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_token_ids_come_back_as_they_were_in_four_bytes_each(ids: list[int]) -> None:
    assert unpack_ids(pack_ids(ids)) == ids and len(pack_ids(ids)) == 4 * len(ids)


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_log_probabilities_come_back_as_float32(values: list[float]) -> None:
    assert unpack_floats(pack_floats(values)) == values


def test_packed_bytes_are_little_endian() -> None:
    assert pack_ids([1]) == b"\1\0\0\0" and pack_floats([1.0]) == np.float32(1).astype("<f4").tobytes()


def test_a_message_and_a_batch_come_back_as_they_were() -> None:
    whole = outcome()
    assert decode(Outcome, encode(whole)) == whole
    assert decode_batch(Outcome, encode_batch([whole, whole])) == [whole, whole]
    assert decode_batch(Outcome, encode_batch([])) == []
    assert Outcome.model_validate_json(whole.model_dump_json()) == whole


def test_an_example_is_no_vote() -> None:
    example = outcome().examples[0]
    assert decode(Example, encode(example)) == example
    with pytest.raises(ArtifactError, match="expected a Vote, found a Example"):
        decode(Vote, encode(example))


OLD: dict[str, Any] = {
    "id": "e", "group_id": "g", "policy": {"adapter": "policy", "version": 2}, "method": "m", "adapter": "policy",
    "weight": 2.0, "render_id": "r", "by": "sample", "context_ids": pack_ids([1, 2]),
}  # fmt: skip
OLD_KINDS: dict[str, tuple[dict[str, Any], Example]] = {
    "Imitate": ({"completion_ids": pack_ids([3])}, imitate("e", pack_ids([1, 2]), pack_ids([3]))),
    "Prefer": (
        {"chosen_ids": pack_ids([3]), "rejected_ids": pack_ids([4, 5])},
        prefer("e", pack_ids([1, 2]), pack_ids([3]), pack_ids([4, 5])),
    ),
    "Reinforce": (
        {"completion_ids": pack_ids([3]), "logprobs": pack_floats([-0.5]), "advantage": -1.5},
        reinforce("e", pack_ids([1, 2]), pack_ids([3]), -1.5, pack_floats([-0.5])),
    ),
}


def as_stored(kind: str, body: dict[str, Any]) -> bytes:
    packed: Any = msgpack.packb({"kind": kind, "schema": 1, "body": body}, use_bin_type=True)
    return b"p" + packed


@pytest.mark.parametrize("kind", OLD_KINDS)
def test_examples_of_older_runs_are_read_as_rows(kind: str) -> None:
    fields, expected = OLD_KINDS[kind]
    expected = expected.model_copy(update={"policy": PolicyRef(version=2), "weight": 2.0})
    assert decode(Example, as_stored(kind, OLD | fields)) == expected
    old = {"lease_id": "l", "place": 3, "prompt_id": "p", "imitate": [], "prefer": [], "reinforce": []}
    held = old | {kind.lower(): [OLD | fields]}
    assert decode(Outcome, as_stored("Outcome", held)).examples == (expected,)


def test_a_long_message_is_compressed() -> None:
    long = group(*[candidate()] * 40)
    assert encode(long)[:1] == b"s" and encode(BASE)[:1] == b"c"
    assert len(encode(long)) < 500


@given(st.integers(0, 2**20))
def test_no_bit_of_a_record_flips_unnoticed(at: int) -> None:
    for message in (BASE, outcome().examples[0], group(), group(*[candidate()] * 40)):
        record = bytearray(encode(message))
        record[at // 8 % len(record)] ^= 1 << at % 8
        with pytest.raises(ArtifactError):
            decode(type(message), bytes(record))


def test_records_of_older_runs_without_a_check_or_deflated_are_read() -> None:
    body = encode(BASE)[5:]
    assert decode(PolicyRef, b"p" + body) == decode(PolicyRef, b"z" + zlib.compress(body)) == BASE


BODY = {"adapter": "policy", "version": 1}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"kind": "PolicyRef", "schema": 99, "body": BODY}, "schema 99 is newer"),
        ({"kind": "Nonsense", "schema": 1, "body": BODY}, "found 'Nonsense'"),
        ({"kind": ["PolicyRef"], "schema": 1, "body": BODY}, "expected a PolicyRef"),
        ({"kind": "PolicyRef", "body": BODY}, "expected a PolicyRef"),
        ({"kind": "PolicyRef", "schema": "1", "body": BODY}, "expected a PolicyRef"),
        ({"kind": "PolicyRef", "schema": 1}, "expected a PolicyRef"),
        ({"kind": "PolicyRef", "schema": 1, "body": 5}, "expected a PolicyRef"),
        ({"kind": "PolicyRef", "schema": 1, "body": {"version": -1}}, "not a valid PolicyRef"),
        ({"kind": "PolicyRef", "schema": 1, "body": {**BODY, "more": 1}}, "not a valid PolicyRef"),
        (7, "found 'int'"),
    ],
)
def test_a_record_that_is_no_such_message_is_refused(tree: object, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        decode(PolicyRef, b"p" + msgpack.packb(tree))


@given(st.binary(max_size=64))
def test_any_bytes_at_all_are_a_message_or_an_artifact_error(noise: bytes) -> None:
    for data in (noise, *(mark + noise for mark in (b"p", b"c", b"s", b"z"))):
        with pytest.raises(ArtifactError):
            decode(Outcome, data)


@given(st.data())
def test_a_record_cut_short_is_refused(data: st.DataObject) -> None:
    whole = encode(outcome())
    with pytest.raises(ArtifactError):
        decode(Outcome, whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_messages_are_frozen_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        BASE.version = 2
    with pytest.raises(ValidationError):
        Prompt.model_validate({"id": "p", "messages": [{"role": "user", "content": "q"}], "answer": "5"})
    assert "answer" not in Prompt.model_fields


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "nan"])
def test_a_vote_that_would_poison_the_ballot_is_refused(weight: object) -> None:
    with pytest.raises(ValidationError):
        Vote.model_validate({"id": "v", "prompt_id": "p", "weight": weight})


@given(st.text(min_size=1), st.integers(0))
def test_the_name_of_a_version_says_which_it_is(adapter: str, version: int) -> None:
    ref = PolicyRef(adapter=adapter, version=version)
    assert PolicyRef.parse(str(ref)) == ref


@pytest.mark.parametrize("name", ["", "policy", "@v1", "policy@v", "policy@v-1", "policy@v1.5", "policy@v\u0663"])
def test_what_names_no_version_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected the form policy@v7"):
        PolicyRef.parse(name)


def test_a_group_is_as_old_as_its_oldest_candidate() -> None:
    assert group(candidate("a", 3), candidate("b", 2)).policy == PolicyRef(version=2)
    assert group().policy == BASE


def test_every_kind_of_message_can_be_found_by_its_name() -> None:
    assert KINDS["Imitate"] is KINDS["Example"] is Example and KINDS["Event"] is Event and "Message" not in KINDS


def test_a_stable_id_tells_its_parts_apart() -> None:
    assert stable_id("a", "bc") == stable_id("a", "bc") != stable_id("ab", "c")
    assert len({stable_id(), stable_id(""), stable_id("", "")}) == 3
