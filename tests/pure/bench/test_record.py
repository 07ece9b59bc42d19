"""What a benchmark's record says beside its figures."""

import argparse
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from bench import learn, priority
from bench._record import ROOT, Surroundings, config_digest


def options(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**({"quick": False, "config": "configs/tiny.yaml", "overrides": []} | changes))


def test_a_record_says_when_from_what_and_on_what_and_nothing_that_names_the_machine() -> None:
    found = Surroundings(learn, options()).found()
    assert tuple(found) == Surroundings.NAMES
    assert len(found["commit"].removesuffix("+dirty")) >= 7
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found["date"])).total_seconds()) < 60
    assert found["machine"]["cores"] == os.cpu_count() and found["machine"]["cpu"]
    assert found["load_average"].keys() == {"start", "end"}
    text = json.dumps(found)
    assert str(ROOT) not in text and str(Path.home()) not in text and socket.gethostname() not in text


def test_the_digest_follows_every_setting_and_no_folder() -> None:
    digest = config_digest(learn, options())
    assert digest == config_digest(learn, options(out=Path("/elsewhere"), run=Path("/runs/one")))
    changed = (
        options(overrides=["learning.lr=0.5"]),
        options(config="configs/tiny-full.yaml"),
        options(quick=True),
        options(seeds=7),
    )
    assert len({digest, *(config_digest(learn, each) for each in changed)}) == 5
    assert digest != config_digest(priority, options())
