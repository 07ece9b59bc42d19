"""Ports and the classes that carry them out stay in step, and no call goes around a port."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from actors.collect.collector import Collector
from actors.evaluate.evaluator import Evaluator
from actors.people.admin import Admin
from actors.people.feedback import FeedbackDesk
from actors.replay.ballots import Ballots
from actors.replay.buffer import Buffer
from actors.replay.exploration import Exploration
from actors.replay.learning import Learning
from actors.replay.windows import Windows
from actors.runtime import ports
from actors.runtime.ports import AdminPort, FeedbackPort, HasStatus, ReplicaPort
from actors.runtime.rpc import local
from actors.storage.store import Store
from actors.train.trainer import Trainer
from actors.versions.for_gate import VersionsForGate
from actors.versions.for_people import VersionsForPeople
from actors.versions.for_replicas import VersionsForReplicas
from actors.versions.for_trainer import VersionsForTrainer
from actors.versions.versions import Versions
from core.proxy import proxy
from serve.weights.transfer import FilesPort, VersionFiles

ROOT = Path(__file__).parents[4]
PACKAGES = ("core", "methods", "training", "serve", "actors")
MAY_CALL_BY_NAME = {"core/proxy.py", "actors/runtime/rpc.py"}
MOST_METHODS, MOST_LINES = 25, 300
PARTS = (Store, Buffer, Versions, Trainer, Collector, Evaluator, FeedbackDesk, Admin)
CARRIED_OUT: dict[type, tuple[type, ...]] = {
    ports.Part: PARTS,
    ports.StorePort: (Store,),
    ports.LeasePort: (Exploration,),
    ports.WindowPort: (Windows,),
    ports.BallotPort: (Ballots,),
    ports.LearningPort: (Learning,),
    ReplicaPort: (VersionsForReplicas,),
    ports.TrainerPort: (VersionsForTrainer,),
    ports.GatePort: (VersionsForGate,),
    ports.ServingPort: (VersionsForPeople,),
    ports.MeasurePort: (Evaluator,),
    FeedbackPort: (FeedbackDesk,),
    AdminPort: (Admin,),
    FilesPort: (VersionFiles,),
}
"""Port -> the classes that carry it out."""
PAIRS = [(port, kind) for port, kinds in CARRIED_OUT.items() for kind in kinds]


def methods(kind: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


def declared(module: object) -> set[type]:
    kinds = {kind for kind in vars(module).values() if inspect.isclass(kind)}
    return {kind for kind in kinds if getattr(kind, "_is_protocol", False)} - {Protocol}


def mismatches(port: type, kind: type) -> list[str]:
    """Methods of the port that the class does not implement itself, with the same parameters."""
    found = []
    for name, asked in methods(port).items():
        inherited = getattr(kind, name, None) is getattr(port, name)
        given = methods(kind).get(name)
        if inherited or given is None:
            found.append(f"{kind.__name__} does not implement {port.__name__}.{name}")
        elif list(asked.parameters.values()) != list(given.parameters.values()):
            found.append(f"{kind.__name__}.{name}{given} differs from {port.__name__}.{name}{asked}")
    return found


@pytest.mark.parametrize(("port", "kind"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_class_implements_every_method_of_its_port_with_the_same_parameters(port: type, kind: type) -> None:
    assert methods(port)
    assert port in kind.__mro__, f"{kind.__name__} must name {port.__name__} as its base"
    assert not mismatches(port, kind)


def test_every_declared_port_is_carried_out_by_a_class_named_above() -> None:
    uncarried = declared(ports) - CARRIED_OUT.keys()
    assert uncarried == {HasStatus}, "name its class in CARRIED_OUT"  # HasStatus is the status alone of any actor


def test_a_port_with_a_new_method_or_a_renamed_parameter_is_noticed() -> None:
    class Port:
        async def take(self, n: int) -> None: ...
        async def added(self) -> None: ...

    class Carrier(Port):
        async def take(self, count: int) -> None: ...

    assert mismatches(Port, Carrier) == [
        "Carrier does not implement Port.added",
        "Carrier.take(self, count: int) -> None differs from Port.take(self, n: int) -> None",
    ]


# --- the source ---


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())


def calls_by_name(tree: ast.AST) -> list[int]:
    """Lines with a call of the form `something.call("method", ...)`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "call"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def sizes(tree: ast.AST) -> dict[str, tuple[int, int]]:
    """Class -> its methods and lines."""
    found: dict[str, tuple[int, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            count = sum(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for child in node.body)
            found[node.name] = (count, (node.end_lineno or node.lineno) - node.lineno + 1)
    return found


def exceeds(size: tuple[int, int], most: tuple[int, int] = (MOST_METHODS, MOST_LINES)) -> bool:
    return size[0] > most[0] or size[1] > most[1]


def test_no_method_of_another_actor_is_called_by_its_name() -> None:
    found = [
        f"{file}:{line}" for file, tree in sources() if file not in MAY_CALL_BY_NAME for line in calls_by_name(tree)
    ]
    assert not found, "declare the method in a port (actors/runtime/ports.py) and call that"


def test_a_call_by_name_is_noticed() -> None:
    assert calls_by_name(ast.parse('x = 1\nawait_ = actor.call("draw", 1)\nother.call(draw)\n')) == [2]


def test_no_class_is_larger_than_a_reader_can_keep_in_mind() -> None:
    found = {f"{file} {name}": size for file, tree in sources() for name, size in sizes(tree).items()}
    larger = {name: size for name, size in found.items() if exceeds(size)}
    assert not larger, f"at most {MOST_METHODS} methods and {MOST_LINES} lines a class; move a part out of it"


def test_an_oversized_class_is_noticed() -> None:
    wide = "class Wide:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(MOST_METHODS + 1))
    long = "class Long:\n" + "    x = 1\n" * MOST_LINES
    assert sizes(ast.parse(wide + long)) == {"Wide": (26, 27), "Long": (0, 301)}
    assert exceeds((26, 27)) and exceeds((0, 301)) and not exceeds((25, 300))


# --- proxies ---


class Greeter:
    async def greet(self, name: str) -> str:
        return f"hello {name}"


async def test_a_local_part_answers_and_refuses_a_method_that_it_lacks() -> None:
    greeter = local(Greeter())
    assert await greeter.greet("ann") == "hello ann"
    with pytest.raises(AttributeError, match="Greeter has no method 'dismiss'; declare it there, and implement it"):
        greeter.dismiss  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match="Greeter has no method '_secret'"):
        greeter._secret  # type: ignore[attr-defined]  # noqa: B018


async def test_a_proxy_passes_the_method_on_and_refuses_one_that_the_port_lacks() -> None:
    async def call(method: str, *arguments: object, **settings: object) -> object:
        return method, arguments, settings

    store = proxy(ports.StorePort, call)
    assert await store.append([]) == ("append", ([],), {})
    with pytest.raises(AttributeError, match="StorePort has no method 'draw'; declare it there, and implement it"):
        store.draw  # type: ignore[attr-defined]  # noqa: B018
