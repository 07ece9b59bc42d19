"""Results of a drill that is spread over several machines."""

from pathlib import Path

from bench._runs import Records


def test_what_a_record_holds_is_not_run_again_unless_a_setting_changed(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    Records(file).add("ttrl-off-s0", ["learning.lr=0.01"], {"accuracy": 0.5})
    again = Records(file)
    assert again.get("ttrl-off-s0", ["learning.lr=0.01"]) == {"accuracy": 0.5}
    assert again.get("ttrl-off-s0", ["learning.lr=0.02"]) is None
    assert again.get("ttrl-off-s1", ["learning.lr=0.01"]) is None
