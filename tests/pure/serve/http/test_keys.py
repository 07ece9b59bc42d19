"""Who may call: keys, their file, and what none of it ever says."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from actors.cli import preflight
from actors.cli.main import app
from core.config import AccessConfig, Config, load
from core.errors import ConfigError
from serve.http import keys_file
from serve.http.errors import Refusal
from serve.http.keys import LOCAL, Caller, Key, Keys, require_admin

SECRET = "rk-" + "a" * 40
OTHER = "rk-" + "b" * 40
HEX = hashlib.sha256(SECRET.encode()).hexdigest()
KEYS = Keys((Key.of("app", "user", SECRET), Key.of("ops", "admin", OTHER)))
NONE: dict[str, str] = {}


def bearer(secret: str, scheme: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", f"{scheme} {secret}".encode())]


def in_file(folder: Path, text: str | bytes, mode: int = 0o600) -> AccessConfig:
    path = folder / "keys.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return AccessConfig(keys=str(path))


def error_of(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    return str(caught.value)


# --- callers ---


def test_a_key_is_known_by_name_and_role() -> None:
    app_, ops = KEYS.caller(bearer(SECRET)), KEYS.caller(bearer(OTHER, "bearer"))
    assert (app_.key, app_.role) == ("app", "user")
    assert (ops.key, ops.role) == ("ops", "admin")


def test_without_keys_every_caller_is_a_local_admin_without_a_salt() -> None:
    assert Keys().caller([]) == Keys().caller(bearer("EMPTY")) == LOCAL == Caller("", "admin", "")
    require_admin(LOCAL)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer("rk-" + "c" * 40),
        bearer(SECRET, "Basic"),
        bearer(""),
        bearer(SECRET[:-1]),
        bearer(HEX),
        bearer(f"sha256:{HEX}"),
        bearer(f"{SECRET} {OTHER}"),
        bearer(SECRET) + bearer(SECRET),
        [(b"authorization", SECRET.encode())],
    ],
)
def test_anything_but_one_known_key_is_refused_with_how_to_send_one(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal) as caught:
        KEYS.caller(headers)
    assert caught.value.status == 401
    reply = caught.value.response()
    assert reply.headers["www-authenticate"] == "Bearer"
    assert json.loads(bytes(reply.body))["error"]["type"] == "authentication_error"


def test_a_user_is_no_admin() -> None:
    require_admin(KEYS.caller(bearer(OTHER)))
    with pytest.raises(Refusal, match="the key `app` has role user") as caught:
        require_admin(KEYS.caller(bearer(SECRET)))
    assert caught.value.status == 403


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    monkeypatch.setattr("serve.http.keys.hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    KEYS.caller(bearer(SECRET))
    assert compared == [key.digest for key in KEYS.held]


def test_salts_differ_by_key_stay_the_same_and_please_vllm() -> None:
    salts = [key.caller().salt for key in KEYS.held]
    assert len(set(salts)) == 2 and salts == [key.caller().salt for key in KEYS.held]
    assert all(0 < len(salt) <= 128 and salt.isalnum() for salt in salts)
    assert HEX not in salts


def test_the_runs_own_key_is_an_admin_beside_the_others_and_new_each_time() -> None:
    keys, secret = KEYS.with_own()
    assert keys.caller(bearer(secret)).role == "admin" and keys.caller(bearer(SECRET)).key == "app"
    assert KEYS.with_own()[1] != secret
    assert Keys().with_own() == (Keys(), "")


def test_neither_secret_nor_hash_nor_salt_stands_in_what_is_printed() -> None:
    caller = KEYS.caller(bearer(SECRET))
    shown = [repr(KEYS), str(KEYS), repr(KEYS.held[0]), repr(caller), str(caller), f"{KEYS.held[0]}"]
    for headers in ([], bearer(OTHER[:-1]), bearer(SECRET, "Basic")):
        with pytest.raises(Refusal) as caught:
            KEYS.caller(headers)
        shown += [str(caught.value), repr(caught.value), bytes(caught.value.response().body).decode()]
    with pytest.raises(Refusal) as caught:
        require_admin(caller)
    shown.append(repr(caught.value))
    hidden = [SECRET, OTHER, OTHER[:-1], HEX, repr(KEYS.held[0].digest), caller.salt]
    assert not [(secret, text) for secret in hidden for text in shown if secret in text]


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"Authorization", b"x"]), st.binary())))
def test_no_header_does_more_than_be_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal):
        KEYS.caller(headers)


# --- file and environment ---


def test_file_and_environment_are_read_together(tmp_path: Path) -> None:
    access = in_file(tmp_path, f"# made by hand\n\n  app user sha256:{HEX}\r\n")
    assert keys_file.read(access, NONE) == Keys((KEYS.held[0],))
    assert keys_file.read(access, {"RATCHET_KEYS": f"ops admin {OTHER}"}) == KEYS
    both = {"RATCHET_KEYS": f"app user sha256:{HEX},ops admin {OTHER}\n"}
    assert keys_file.read(AccessConfig(), both) == KEYS
    assert keys_file.read(AccessConfig(), NONE) == Keys()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"app user sha256:{HEX}\napp2 user", "line 2 has 2 words; expected NAME ROLE sha256:HEX"),
        (f"app root sha256:{HEX}", "line 1: the second word is not a role; expected user or admin"),
        (f"{SECRET * 2} user sha256:{HEX}", "line 1 does not begin with a name"),
        (f"# mine\napp user {SECRET}", "line 2: the third word is not a hash; expected sha256: and 64 digits"),
        (f"app user sha256:{HEX[:-1]}", "line 1: the third word is not a hash"),
        (f"app user sha256:{HEX}\napp user sha256:{'0' * 64}", "two keys are named app"),
        (f"app user sha256:{HEX}\nops admin sha256:{HEX}", "the keys app and ops are the same secret"),
        ("# nobody yet\n", "holds no key; make one with `ratchet keys NAME`"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected_and_not_shown(tmp_path: Path, text: str | bytes, told: str) -> None:
    error = error_of(keys_file.read, in_file(tmp_path, text), NONE)
    assert told in error and "keys" in error
    assert SECRET not in error and HEX[:-1] not in error


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("app user hunter2", "RATCHET_KEYS, line 1: the third word is not a secret; expected 32 or more random ASCII"),
        (f"app user {'é' * 40}", "the third word is not a secret"),
        (f"ops admin {OTHER},app user sha256:beef", "RATCHET_KEYS, line 2: the third word is not a hash"),
        (f"app:user:{SECRET}", "line 1 has 1 words; expected NAME ROLE SECRET"),
        ("", "RATCHET_KEYS holds no key"),
    ],
)
def test_a_bad_environment_is_refused_and_not_shown(text: str, told: str) -> None:
    error = error_of(keys_file.read, AccessConfig(), {"RATCHET_KEYS": text})
    assert told in error
    assert SECRET not in error and "hunter2" not in error and "beef" not in error


def test_a_file_that_others_may_write_is_refused_and_one_they_may_read_is_noted(tmp_path: Path) -> None:
    line = f"ops admin sha256:{HEX}\n"
    for mode in (0o620, 0o602, 0o666):
        assert "other users could add keys" in error_of(keys_file.read, in_file(tmp_path, line, mode), NONE)
    for mode, notes in ((0o600, 0), (0o611, 0), (0o604, 1), (0o640, 1), (0o644, 1)):
        access = in_file(tmp_path, line, mode)
        assert len(keys_file.notes(keys_file.read(access, NONE), access)) == notes


def test_keys_without_an_admin_are_noted() -> None:
    assert keys_file.notes(Keys((KEYS.held[0],)), AccessConfig()) == [
        "no key has role admin: no request can pause, promote or roll back"
    ]
    assert keys_file.notes(KEYS, AccessConfig()) == keys_file.notes(Keys(), AccessConfig()) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "make it with `ratchet keys NAME --file" in error_of(keys_file.read, AccessConfig(keys="no/such"), NONE)
    for path in (str(tmp_path), "a\0b"):
        assert "cannot be read" in error_of(keys_file.read, AccessConfig(keys=path), NONE)


line_like = st.lists(st.sampled_from(["app", "user", "admin", f"sha256:{HEX}", SECRET, "#", " ", "\n", ",", "\t"]))


@given(st.binary() | line_like.map(lambda parts: " ".join(parts).encode()))
def test_no_bytes_in_a_keys_file_do_more_than_be_refused(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        access = in_file(Path(folder), text)
        try:
            assert keys_file.read(access, NONE).held
        except ConfigError as error:
            assert SECRET not in str(error) and HEX not in str(error)


@given(st.text(st.characters(codec=None)) | line_like.map(" ".join))
def test_no_text_in_the_environment_does_more_than_be_refused(text: str) -> None:
    try:
        assert keys_file.read(AccessConfig(), {"RATCHET_KEYS": text}).held
    except ConfigError as error:
        assert SECRET not in str(error) and HEX not in str(error)


# --- making keys ---


def test_a_made_key_is_known_and_only_its_hash_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    secrets = [keys_file.add(path, "app", "user"), keys_file.add(path, "ops", "admin")]
    assert path.stat().st_mode & 0o777 == 0o600
    keys = keys_file.read(AccessConfig(keys=str(path)), NONE)
    assert [keys.caller(bearer(secret)).key for secret in secrets] == ["app", "ops"]
    assert not [secret for secret in secrets if secret in path.read_text()]
    assert all(len(secret) >= keys_file.SHORTEST for secret in secrets)


def test_a_key_is_on_the_disk_before_its_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "keys.txt", list[int]()
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    keys_file.add(path, "app", "user")
    assert synced == [path.stat().st_size]


def test_two_who_add_a_key_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    with path.open("ab") as other, ThreadPoolExecutor() as threads:
        fcntl.flock(other, fcntl.LOCK_EX)
        adding = threads.submit(keys_file.add, path, "app", "user")
        with pytest.raises(TimeoutError):
            adding.result(timeout=0.3)
        other.write(f"ops admin sha256:{HEX}\n".encode())
        other.flush()
        fcntl.flock(other, fcntl.LOCK_UN)
        adding.result(timeout=10)
    assert [line.split()[0] for line in path.read_text().splitlines()] == ["ops", "app"]


def test_a_secret_is_long_enough_from_the_environment_and_as_it_is_made() -> None:
    assert keys_file.read(AccessConfig(), {"RATCHET_KEYS": f"app user {'x' * 32}"}).held[0].name == "app"
    assert "is not a secret" in error_of(keys_file.read, AccessConfig(), {"RATCHET_KEYS": f"app user {'x' * 31}"})
    key, secret = Key.new("app", "user")
    assert secret.startswith("rk-") and len(secret) == 3 + 43, "32 random bytes"
    assert key == Key.of("app", "user", secret)


def test_a_key_is_added_after_a_last_line_without_an_end(tmp_path: Path) -> None:
    access = in_file(tmp_path, f"app user sha256:{HEX}")
    keys_file.add(tmp_path / "keys.txt", "ops", "admin")
    assert [key.name for key in keys_file.read(access, NONE).held] == ["app", "ops"]


def test_a_name_is_given_once_and_a_bad_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    keys_file.add(path, "app", "user")
    before = path.read_bytes()
    assert "two keys are named app" in error_of(keys_file.add, path, "app", "admin")
    assert "'a b' is not a key name" in error_of(keys_file.add, path, "a b", "user")
    assert path.read_bytes() == before
    path.write_text("nonsense\n")
    assert "line 1 has 1 words" in error_of(keys_file.add, path, "ops", "admin")
    assert path.read_text() == "nonsense\n"
    assert "cannot be written" in error_of(keys_file.add, tmp_path / "no" / "keys.txt", "ops", "admin")


def test_the_command_prints_the_key_alone_and_says_how_to_use_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    told = CliRunner().invoke(app, ["keys", "ops", "--role", "admin", "--file", str(path)])
    assert told.exit_code == 0, told.output
    secret = told.stdout.strip()
    assert (
        keys_file.read(AccessConfig(keys=str(path)), NONE).caller(bearer(secret))
        == Key.of("ops", "admin", secret).caller()
    )
    assert "serve.access.keys" in told.stderr and "Authorization: Bearer KEY" in told.stderr


# --- before anything starts ---


def access_of(*overrides: str) -> Config:
    return load(None, list(overrides))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.0.7", "example.org", "127.0.0.1.example.org"])
def test_a_host_that_others_reach_is_refused_without_keys(host: str, tmp_path: Path) -> None:
    error = error_of(preflight.check_access, access_of(f"serve.host={host!r}"), NONE)
    assert "without keys" in error and "`ratchet keys NAME --role admin --file keys.txt`" in error
    in_file(tmp_path, f"ops admin sha256:{HEX}\n")
    keyed = access_of(f"serve.host={host!r}", f"serve.access.keys={tmp_path}/keys.txt")
    assert preflight.check_access(keyed, NONE) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_a_loopback_host_needs_no_keys(host: str) -> None:
    assert preflight.check_access(access_of(f"serve.host={host!r}"), NONE) == []


def test_bad_keys_are_refused_first() -> None:
    missing = access_of("serve.access.keys=no/such/file", "model.path=models/nothing")
    assert "no keys file" in error_of(preflight.check, missing)


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "example.org", "https://example.org/", "HTTPS://a.b"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    assert "is not an origin" in error_of(load, None, [f"serve.access.allow_origins=[{origin!r}]"])
