"""Truncated, flipped and foreign bytes in all files that are read at the start: a clear error names the file, and no
other file is damaged."""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.cli import preflight
from actors.storage.run_dir import CONFIG_FILE, LIVE_FILE, RunDir, live_url
from core import config as configuration
from core.artifacts import MANIFEST, appearing, read_manifest, verify
from core.codec import decode, decode_batch, encode, encode_batch
from core.config import Config
from core.errors import ArtifactError, ConfigError, RatchetError, RunInUse, StoreError
from core.messages import KINDS, Decision, Message, Outcome, Published, Vote
from core.store.facts import LineageFact, Paused
from core.store.records import event, outcome_records
from core.store.writer import FILE, RunReader, RunStore
from methods.data import prompts
from methods.data.held_out import probes_of
from tests.pure.core.store.test_retention import explored

FOREIGN = (
    b"",
    b"\0" * 100,
    b"not at all what was expected\n" * 50,
    os.urandom(3000),
    b"\xff\xfe\xfa" * 99,
    b"[" * 99_999,
)


def harms(body: bytes, seed: int = 0, flips: int = 60) -> list[bytes]:
    """Foreign files, the file cut at many places, and with single bits flipped."""
    rng = random.Random(seed)
    cut = [body[: rng.randrange(len(body))] for _ in range(20)]
    flipped = [bytearray(body) for _ in range(flips)]
    for each in flipped:
        each[rng.randrange(len(each))] ^= 1 << rng.randrange(8)
    return [*FOREIGN, *cut, *map(bytes, flipped)]


def survives(read: Callable[[], Any], file: Path) -> str | None:
    """None if the file could be read; else the error, which must be ours and name the file."""
    try:
        read()
    except RatchetError as error:
        assert file.name in str(error), f"{error!r} does not say which file"
        return str(error)
    return None


# --- the store ---


def read_everything(folder: Path) -> None:
    reader = RunReader(folder)
    try:
        for table, kind in (("votes", Vote), ("versions", Published), ("decisions", Decision)):
            list(reader.all(table, kind))
        list(reader.outcomes())
        reader.read(LineageFact)
        reader.events()
    finally:
        reader.close()


def write_one(folder: Path) -> None:
    store = RunStore(folder)
    try:
        store.write([Paused(reason="later", at=1.0).record(), event(2.0, "x", "later")])
        store.forget([0])
    finally:
        store.close()


def test_a_damaged_store_is_read_in_full_or_refused_by_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    store = RunStore(whole)
    for place in range(5):
        store.write([*outcome_records(explored(place)), LineageFact(serve=place).record()])
        store.write([event(1.0, "x", "y", n=place)])
    store.close()
    body, refused = (whole / FILE).read_bytes(), 0
    for number, damaged in enumerate(harms(body, flips=150)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / FILE).write_bytes(damaged)
        refused += survives(lambda folder=folder: read_everything(folder), folder / FILE) is not None
        survives(lambda folder=folder: write_one(folder), folder / FILE)
        shutil.rmtree(folder)
    assert refused > 25


def test_a_store_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TABLE somebody_elses (x)")
    db.commit()
    db.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match=r"run\.sqlite is not a run of Ratchet \(tables: \['somebody_elses'\]\)"):
        RunStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("harm", ["empty", "gone"])
def test_a_store_that_is_lost_is_not_begun_anew_where_versions_were_trained(harm: str, tmp_path: Path) -> None:
    (tmp_path / "versions" / "v0001").mkdir(parents=True)
    if harm == "empty":
        (tmp_path / FILE).touch()
    with pytest.raises(StoreError, match=r"run\.sqlite is empty or gone, but there are 1 versions; restore it"):
        RunStore(tmp_path)


# --- version folders ---


def a_version(tmp_path: Path) -> Path:
    path = tmp_path / "versions" / "v0001"
    with appearing(path, {"ref": "policy@v1"}) as aside:
        (aside / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 4)
    return path


def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path) -> None:
    path = a_version(tmp_path)
    file = path / MANIFEST
    body = file.read_bytes()
    for damaged in harms(body):
        file.write_bytes(damaged)
        survives(lambda: verify(path), path)
    for damaged in FOREIGN:
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=rf"{MANIFEST} .* remove {path}"):
            read_manifest(path)


def test_any_change_of_a_versions_weights_is_refused_by_name(tmp_path: Path) -> None:
    path = a_version(tmp_path)
    weights = path / "adapter_model.safetensors"
    body = weights.read_bytes()
    for damaged in harms(body):
        weights.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors has digest .* restore it or remove"):
            verify(path)
    weights.unlink()
    weights.mkdir()
    with pytest.raises(ArtifactError, match="has digest missing"):
        verify(path)


# --- the run directory ---


def test_a_damaged_config_of_a_run_is_refused_by_name_or_still_a_config(tmp_path: Path) -> None:
    file = tmp_path / CONFIG_FILE
    body = configuration.dump(configuration.load(None)).encode()
    refused = 0
    for damaged in [*harms(body, flips=120), b"a: " + b"[" * 5000, b"run: {seed: 2001-99-99}", b"? {a: b}\n: c"]:
        file.write_bytes(damaged)
        refused += survives(lambda: configuration.load(file), file) is not None
    assert refused > 30


@given(st.binary(max_size=200))
def test_whatever_config_bytes_hold_the_error_is_a_config_error(tmp_path_factory: Any, body: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any-config.yaml"
    file.write_bytes(body)
    with contextlib.suppress(ConfigError):
        assert isinstance(configuration.load(file), Config)


LIVES = [
    b"[]", b"3", b'{"pid": "x", "url": "u"}', b'{"pid": -1, "url": "u"}', b'{"pid": 0, "url": "u"}',
    b'{"pid": 1e300, "url": "u"}', b'{"pid": 99999999999999999999, "url": "u"}', b'{"pid": true, "url": "u"}',
    b'{"url": "u"}', b'{"pid": 1, "url": 3}',
]  # fmt: skip


@pytest.mark.parametrize("body", [*FOREIGN, *LIVES])
def test_a_damaged_sign_of_life_is_none(body: bytes, tmp_path: Path) -> None:
    (tmp_path / LIVE_FILE).write_bytes(body)
    assert live_url(tmp_path) is None


def test_a_true_sign_of_life_is_one(tmp_path: Path) -> None:
    (tmp_path / LIVE_FILE).write_text(json.dumps({"pid": os.getpid(), "url": "http://here"}))
    assert live_url(tmp_path) == "http://here"


@pytest.mark.parametrize("body", FOREIGN)
def test_whatever_a_lock_holds_it_is_the_lock_that_counts(body: bytes, tmp_path: Path) -> None:
    config = configuration.load(None, [f"run.dir={tmp_path}/run"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_bytes(body)
    first = RunDir.open(config)
    (tmp_path / "run" / "lock").write_bytes(body)
    with pytest.raises(RunInUse, match=r"run is in use by process"):
        RunDir.open(config)
    first.close()
    RunDir.open(config).close()


def test_a_lock_that_is_no_file_and_a_run_that_is_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"lock cannot be opened .* remove it"):
        RunDir.open(configuration.load(None, [f"run.dir={tmp_path}/run"]))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"run\.dir=.*file/run cannot be created .* choose another"):
        RunDir.open(configuration.load(None, [f"run.dir={tmp_path}/file/run"]))


# --- prompts, anchors, the model's own files ---


def test_damaged_questions_are_refused_by_name_or_still_questions(tmp_path: Path) -> None:
    file = tmp_path / "anchors.parquet"
    table = pa.table({"prompt": [f"what is {i}?" for i in range(40)], "answer": [str(i) for i in range(40)]})
    pq.write_table(table.replace_schema_metadata({"model_sha256": "0"}), file)
    config = configuration.load(None, [f"gate.anchors={file}", f"prompts.path={file}"])
    refused = 0
    for damaged in harms(file.read_bytes(), flips=150):
        file.write_bytes(damaged)
        told = [
            survives(lambda: probes_of(config), file),
            survives(lambda: prompts.read(config.prompts), file),
            survives(lambda: preflight._check_anchors(config), file),
        ]
        refused += told[0] is not None
    assert refused > 25


def test_a_damaged_model_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree("models/word-problems/model", model)
    config = configuration.load(None, [f"model.path={model}"])
    preflight._check_memory(config)
    for name in ("config.json", "model.safetensors"):
        body = (model / name).read_bytes()
        head = body[:2000]
        for damaged in [*FOREIGN, *(bytes(each) + body[2000:] for each in harms(head, flips=60)[len(FOREIGN) :])]:
            (model / name).write_bytes(damaged)
            survives(lambda: preflight._check_memory(config), model / name) if name == "config.json" else survives(
                lambda: preflight.parameters_of(model), model / name
            )
        (model / name).write_bytes(body)


# --- messages ---

SOME: list[Message] = [
    Vote(id="a", prompt_id="p", answer="7"),
    explored(3),
    Outcome(lease_id="l", place=1, prompt_id="p", failure="why"),
]
TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENVELOPES = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(KINDS)) | TREES, "schema": st.integers(-2, 3) | TREES, "body": TREES}
)


def only_artifact_errors(data: bytes) -> None:
    for kind in (Vote, Outcome, Message):
        for read in (decode, decode_batch):
            with contextlib.suppress(ArtifactError):
                read(kind, data)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([b"", b"p", b"c", b"s", b"z"]))
def test_decoding_any_bytes_ends_in_an_artifact_error_or_a_message(body: bytes, mark: bytes) -> None:
    only_artifact_errors(mark + body)


@settings(max_examples=150)
@given(ENVELOPES | TREES | st.lists(ENVELOPES, max_size=3))
def test_decoding_any_tree_ends_in_an_artifact_error_or_a_message(tree: Any) -> None:
    only_artifact_errors(b"p" + msgpack.packb(tree, use_bin_type=True, strict_types=False))


@settings(max_examples=300)
@given(st.sampled_from(SOME), st.data())
def test_decoding_a_message_with_bits_flipped_or_cut_off_ends_in_an_artifact_error_or_a_message(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(data.draw(st.sampled_from([encode(message), encode_batch([message, message])])))
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3)):
        body[at] ^= 1 << data.draw(st.integers(0, 7))
    only_artifact_errors(bytes(body[: data.draw(st.integers(0, len(body)))]))
    only_artifact_errors(bytes(body))


def test_a_message_cut_short_or_with_something_behind_it_is_refused() -> None:
    long = encode(explored(1))
    for damaged in (long[:-1], long + b"x", b"s", b"z"):
        with pytest.raises(ArtifactError, match="damaged record"):
            decode(Outcome, damaged)
