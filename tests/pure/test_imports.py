"""The walls between the rooms, read off every import statement."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "core": set[str](),
    "methods": {"core"},
    "training": {"core"},
    "serve": {"core"},
    "actors": {"core", "methods", "training", "serve"},
}
OURS = {*MAY_IMPORT, "bench", "models", "tests"}
ONLY_IN = {
    "ray": ("actors/*", "serve/replica/*", "serve/weights/transfer.py"),
    "torch": ("training/*", "serve/engine/*"),
    "vllm": ("serve/engine/*",),
}


def imported(source: str) -> Iterator[str]:
    """Top-level names of every module that the source imports, inside functions and by a literal name too."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=module, level=level):
                yield "." * level if level else (module or "").partition(".")[0]
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[name, *_]):
                if isinstance(name, ast.Constant):
                    yield str(name.value).partition(".")[0]
            case _:
                pass


def trespasses(path: str, source: str) -> list[str]:
    room = path.partition("/")[0]
    found: list[str] = []
    for name in imported(source):
        if name.startswith("."):
            found.append(f"{path} imports relatively; write `from {room}.x import y`")
        if name in OURS and name != room and name not in MAY_IMPORT[room]:
            allowed = ", ".join(sorted(MAY_IMPORT[room])) or "nothing of ours"
            found.append(f"{path} imports {name}; {room}/ may import {allowed}")
        if name in ONLY_IN and not any(fnmatch(path, place) for place in ONLY_IN[name]):
            found.append(f"{path} imports {name}, which belongs in {', '.join(ONLY_IN[name])}")
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_room_imports_what_its_walls_keep_out(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert not [line for file in files for line in trespasses(str(file.relative_to(ROOT)), file.read_text())]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/a.py", "from methods.explore import explore"),
        ("core/a.py", "import torch.nn as nn"),
        ("methods/a.py", "def f():\n    import training.gate.gate"),
        ("serve/a.py", "from training import gate"),
        ("serve/a.py", "import ray"),
        ("training/a.py", "import ray.train"),
        ("methods/scorers/a.py", "from .b import c"),
        ("actors/a.py", "from vllm import LLM"),
        ("actors/a.py", "import torch"),
        ("core/a.py", "import_module('torch.utils')"),
    ],
)
def test_the_walk_catches_each_kind_of_trespass(path: str, source: str) -> None:
    assert trespasses(path, source)


def test_the_walk_lets_the_allowed_through() -> None:
    assert not trespasses("actors/a.py", "import ray\nfrom methods.explore import explore")
    assert not trespasses("serve/engine/worker.py", "import vllm, torch")
    assert not trespasses("serve/replica/app.py", "from ray import serve as rayserve")
    assert not trespasses("methods/a.py", "import asyncio, numpy\nfrom core.messages import Prompt")
