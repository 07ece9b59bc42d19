"""What people read of an event."""

import pytest
from rich.text import Text

from actors.inspect.sentences import sentence
from core.messages import Event


def said(kind: str, **detail: object) -> str:
    line = sentence(Event(at=0.0, actor="a", kind=kind, detail=detail))
    assert line is not None
    return Text.from_markup(line).plain


@pytest.mark.parametrize("arrived", [None, 0.81, 1.02])
def test_a_version_that_arrived_whole_is_proven_without_another_word(arrived: float | None) -> None:
    assert said("proven", version=1, arrived=arrived) == "v1 proven in every replica; collectors sample from it"


def test_a_step_that_rounding_swallowed_is_named_with_the_remedy() -> None:
    assert "(only 74% of its step is left in the engine's precision; model.engine_dtype=float32 keeps all" in said(
        "proven", version=1, arrived=0.736
    )


def test_an_event_of_an_older_run_has_no_such_number() -> None:
    assert said("proven", version=1).endswith("collectors sample from it")


def test_anchors_that_are_too_few_are_said_to_be() -> None:
    assert said("anchored", questions=400, anchors=312, few=None).startswith("312 anchors made of the base's answers")
    assert said("anchored", questions=400, anchors=12, few="12 probes are few").endswith("; 12 probes are few")
