"""The Prometheus queries in the files of dashboards/."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml

FOLDER = Path(__file__).parents[1] / "dashboards"
_NOT_METRICS = {"and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool", "group_left", "group_right"}
_SELECTOR = re.compile(r'([A-Za-z_:][\w:]*)((?:\{(?:[^"{}]|"[^"]*")*\})?)')


class Asked(NamedTuple):
    where: str
    expression: str


def alerts() -> dict[str, str]:
    """Alert name -> expression."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> list[Asked]:
    """Every target of every panel, with a value for Grafana's $__rate_interval."""
    board = json.loads((FOLDER / "grafana" / "ratchet.json").read_text())
    return [
        Asked(panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def everything() -> list[Asked]:
    return [*panels(), *(Asked(name, expression) for name, expression in alerts().items())]


def selectors(expression: str) -> list[str]:
    """Every metric that an expression reads, with its matchers, such as `up{job="ratchet"}`."""
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", bare)
    found: list[str] = []
    for match in _SELECTOR.finditer(bare):
        name, matchers = match.groups()
        called = bare[match.end() :].lstrip().startswith("(")
        digits = match.start() > 0 and bare[match.start() - 1] in "0123456789."
        if not called and not digits and name not in _NOT_METRICS:
            found.append(name + matchers)
    return found
