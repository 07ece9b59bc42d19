"""Do the tests notice when the code is wrong? Changes one expression of a module at a time and runs the module's tests.

    ./run mutants --sample 150 --seed 7             # of all modules in the table below; --only PATH for some of them
    ./run mutants --list --only core/store          # what would be changed, and where

A mutant is killed if a test fails or hangs, and survives otherwise. Known equivalents, which no test can kill, stand in
tests/mutants_equivalent.txt with a reason each. The changes are made in a private copy of the tree; results are kept in
runs/mutants.jsonl, so a run that was stopped goes on where it was, and only what a changed file concerns is run again.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = ROOT / "tests/mutants_equivalent.txt"
RESULTS = ROOT / "runs/mutants.jsonl"

LINEAGE = "test_lineage_in_detail.py test_lineage.py test_lineage_by_hand.py"
RECIPES = "methods/recipes/test"
STORE = "test_reader.py test_schema.py test_retention_rules.py"
SCORERS = {
    "by_score": f"{RECIPES}_sft_sharpening.py {RECIPES}_corrupted_context.py",
    "comparisons": f"{RECIPES}_xpo.py",
    "first_votes": f"{RECIPES}_two_turns.py",
    "formats": f"{RECIPES}_lmsi_formats.py",
    "guided": f"{RECIPES}_gsi.py",
    "judge": f"methods/test_judge.py {RECIPES}_self_rewarding.py {RECIPES}_verify_filter.py",
    "last_votes": f"{RECIPES}_multiagent.py",
    "meta_judge": f"{RECIPES}_meta_rewarding.py",
    "neighbours": f"{RECIPES}_simple.py",
    "overlap": f"{RECIPES}_corrupted_context.py",
    "paired": f"{RECIPES}_xpo.py",
    "read": f"{RECIPES}_iwsi.py",
    "rival_arms": f"{RECIPES}_xpo.py",
    "self_logprob": f"{RECIPES}_sft_sharpening.py {RECIPES}_sharpening.py",
    "self_verified": f"{RECIPES}_s2r.py",
    "thumbs": f"{RECIPES}_kto.py",
    "tournament": f"{RECIPES}_verify_filter.py",
    "tree_values": f"{RECIPES}_trees.py",
    "verified": f"{RECIPES}_verify_filter.py",
}
"""Scorers of one recipe or two are tested where the recipes are."""
TESTS = {
    "training/replay/*.py": "training/test_replay.py training/test_backpressure.py training/test_interval_set.py",
    "training/gate/*.py": "training/test_gate.py training/test_guards.py training/test_weighing.py "
    "training/test_rule.py training/test_sight.py training/test_statistics.py training/test_slices.py",
    "training/gate/power.py": "training/test_power.py",
    "training/gate/slices.py": "training/test_slices.py",
    "methods/ballot.py": f"methods/test_ballot.py {RECIPES}_xpo.py",
    "methods/scorers/*.py": "methods/test_scorers.py",
    **{f"methods/scorers/{name}.py": tests for name, tests in SCORERS.items()},
    "actors/versions/lineage*.py": " ".join(f"actors/versions/{name}" for name in LINEAGE.split()),
    "actors/replay/leases.py": "actors/replay/test_leases.py",
    "serve/replica/reconcile.py": "serve/replica/test_reconcile_slots.py",
    "core/arrival_proof.py": "core/test_arrival_bounds.py core/test_arrival_proof.py",
    "serve/http/keys*.py": "serve/http/test_keys.py",
    "serve/http/limits.py": "serve/http/test_limits.py",
    "core/store/*.py": " ".join(f"core/store/{name}" for name in STORE.split()),
}
"""Modules -> the tests below tests/pure that concern them. A mutant ends with the first failure."""

SWAPPED: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,), ast.USub: (ast.UAdd,),
}  # fmt: skip
OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    module: str
    name: str
    """Function and change, without line numbers: what tests/mutants_equivalent.txt lists."""
    text: str
    """The whole module, changed."""


def changes(node: ast.AST) -> Iterator[str]:
    """The texts that may stand in place of this node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for op in SWAPPED[type(node.ops[0])]:
            yield f"({ast.unparse(ast.Compare(node.left, [op()], node.comparators))})"
    elif isinstance(node, ast.Compare):
        for at, old in enumerate(node.ops):
            ops = [SWAPPED[type(old)][0]() if i == at else op for i, op in enumerate(node.ops)]
            yield f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})"
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield f"({ast.unparse(ast.BinOp(node.left, SWAPPED[type(node.op)][0](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(SWAPPED[type(node.op)][0](), node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from (str(node.value + 1), f"({node.value - 1})")
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield from (str(node.value * 2 + (node.value == 0)), str(node.value / 2 - (node.value == 0)))
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in OPPOSITE:
            other = ast.Name(OPPOSITE[node.func.id])
            yield f"({ast.unparse(ast.Call(other, node.args, node.keywords))})"
        for keyword in node.keywords:
            if keyword.arg:
                rest = [other for other in node.keywords if other is not keyword]
                yield f"({ast.unparse(ast.Call(node.func, node.args, rest))})"
    elif isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield "return None"
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)):
        yield "pass"
    elif isinstance(node, ast.AugAssign):
        yield "pass"
        if type(node.op) in SWAPPED:
            yield ast.unparse(ast.AugAssign(node.target, SWAPPED[type(node.op)][0](), node.value))


def changed_nodes(tree: ast.AST) -> Iterator[tuple[str, ast.AST, str]]:
    """Function, node and its new text. Left out: types, decorators, and what only people read (messages, logs)."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST, str]]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{where}.{node.name}".lstrip(".")
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases):
                return
        if _is_left_out(node):
            return
        for text in changes(node):
            yield where, node, text
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from ((where, node.test, text) for text in ("True", "False") if ast.unparse(node.test) != text)
        if isinstance(node, ast.comprehension):
            yield from ((where, test, "True") for test in node.ifs)
        if isinstance(node, ast.Raise):
            return
        for name, field in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list", "bases"):
                for child in field if isinstance(field, list) else [field]:
                    if isinstance(child, ast.AST):
                        yield from walk(child, where)

    yield from walk(tree, "")


def _is_left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr | ast.Assign):
        return ast.unparse(node.value).startswith(("log.", "TypeVar("))
    return isinstance(node, ast.JoinedStr | ast.Assert)


def mutants(module: str) -> list[Mutant]:
    """All mutants of a module. Two equal changes in one function have one name, with a number."""
    text = (ROOT / module).read_text()
    lines = text.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines))]
    raw = text.encode()
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for where, node, new in changed_nodes(ast.parse(text)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        first, last = starts[node.lineno - 1], (*starts, len(raw))[node.end_lineno]
        old_lines = " ".join(raw[first:last].decode().split())
        new_lines = " ".join((raw[first:start] + new.encode() + raw[end:last]).decode().split())
        name = f"{where or 'module'}: {old_lines} -> {new_lines}"
        seen[name] += 1
        changed = (raw[:start] + new.encode() + raw[end:]).decode()
        found.append(Mutant(module, name if seen[name] == 1 else f"{name} ({seen[name]})", changed))
    return found


class Runner:
    """Runs tests in forked children of this process, which has imported all that does not depend on the module."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        for name in subprocess.check_output(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
        ).splitlines():
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        subprocess.run([sys.executable, "-m", "compileall", "-q", "."], cwd=copy, check=True)
        sys.path = [str(copy), *(p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "tests"))]
        sys.dont_write_bytecode = True
        os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        os.chdir(copy)
        self._module, self._limit_s = "", 0.0

    def run(self, tests: str, limit_s: float) -> tuple[int | None, str]:
        """Exit code of pytest (None: it hung and was killed) and the end of what it printed."""
        output = self._copy / ".output"
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)  # not a session: Linux would give it a full share of the CPU, whatever our niceness
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = 70
            try:
                import pytest

                args = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
                code = int(pytest.main([*args, *(f"tests/pure/{test}" for test in tests.split())]))
                (self._copy / ".imported").write_text("\n".join(sys.modules))
            finally:
                sys.stdout.flush()
                os._exit(code)
        status, deadline = 0, time.monotonic() + limit_s
        try:
            while (ended := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
        finally:  # also what a test left running, and everything if this process is stopped
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if ended else None, output.read_text(errors="replace")[-3000:]

    def _turn_to(self, module: str, tests: str) -> None:
        """Run the tests on the code as it is, and import what they needed. Raises: SystemExit if they fail."""
        own = ("core", "methods", "training", "serve", "actors", "bench")
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        began = time.monotonic()
        code, output = self.run(tests, 900)
        took_s = time.monotonic() - began
        if code != 0:
            raise SystemExit(f"{output}\nthe tests of {module} fail without any change ({tests}); mend them first")
        changed = module.removesuffix(".py").replace("/", ".")
        sys.modules[changed] = None  # so that what depends on it cannot be imported either
        for name in (self._copy / ".imported").read_text().split():
            if not name.startswith(("tests.", "conftest", "__")):
                with suppress(ImportError):
                    __import__(name)
        del sys.modules[changed]
        self._module, self._limit_s = module, 20 + 5 * took_s

    def survives(self, mutant: Mutant, tests: str) -> bool:
        if mutant.module != self._module:
            self._turn_to(mutant.module, tests)
        file = self._copy / mutant.module
        original = file.read_text()
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
            compiled.unlink()
        try:
            file.write_text(mutant.text)
            return self.run(tests, self._limit_s)[0] == 0
        finally:
            file.write_text(original)


def equivalents() -> set[tuple[str, str]]:
    """Module and name of each line `MODULE | NAME | REASON`."""
    lines = [line for line in EQUIVALENT.read_text().splitlines() if line and not line.startswith("#")]
    parts = [line.split(" | ") for line in lines]
    return {(module, " | ".join(name)) for module, *name, _ in parts}


def digest(mutant: Mutant, tests: str) -> str:
    """Changes with the module, the change, and the module's tests."""
    paths = [ROOT / "tests/pure" / test for test in tests.split()]
    files = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    return hashlib.sha256(b"\0".join([mutant.text.encode(), *(file.read_bytes() for file in files)])).hexdigest()


def outcomes(drawn: list[Mutant], modules: dict[str, str], known: set[tuple[str, str]]) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with `killed`, `survived` or `equivalent`."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.touch()
    before = dict(json.loads(line) for line in RESULTS.read_text().splitlines())
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, RESULTS.open("a") as results:
        runner = Runner(Path(folder))
        for mutant in sorted(drawn, key=lambda mutant: mutant.module):
            tests = modules[mutant.module]
            key = digest(mutant, tests)
            if (mutant.module, mutant.name) in known:
                yield mutant, "equivalent"
                continue
            if key not in before:
                before[key] = "survived" if runner.survives(mutant, tests) else "killed"
                results.write(json.dumps([key, before[key]]) + "\n")
                results.flush()
            yield mutant, before[key]


def report(drawn: list[Mutant], modules: dict[str, str], known: set[tuple[str, str]], most: float) -> int:
    """Print survivors as they are found, then a table. 1 if more than the share `most` survives."""
    counts: dict[str, Counter[str]] = {module: Counter() for module in modules}
    for mutant, outcome in outcomes(drawn, modules, known):
        counts[mutant.module][outcome] += 1
        if outcome == "survived":
            print(f"survived: {mutant.module} | {mutant.name}", flush=True)
    total = sum(counts.values(), Counter())
    print("\n| module | killed | survived | equivalent |\n|---|---|---|---|")
    for module, of_module in [*counts.items(), ("**all**", total)]:
        if of_module:
            print(f"| {module} | {of_module['killed']} | {of_module['survived']} | {of_module['equivalent']} |")
    share = total["survived"] / max(1, total["killed"] + total["survived"])
    print(f"\n{share:.1%} survive; at most {most:.0%} may")
    return int(share > most)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run mutants", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn by the seed; default: all")
    parser.add_argument("--seed", default="0", help="any text, such as a date")
    parser.add_argument("--only", action="append", help="modules whose path begins so; may be repeated")
    parser.add_argument("--most", type=float, default=0.05, help="largest share that may survive, without equivalents")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    options = parser.parse_args()

    modules = {
        str(path.relative_to(ROOT)): tests
        for pattern, tests in TESTS.items()
        for path in sorted(ROOT.glob(pattern))
        if not options.only or str(path.relative_to(ROOT)).startswith(tuple(options.only))
    }
    drawn = [mutant for module in modules for mutant in mutants(module)]
    known = equivalents()
    unknown = {pair for pair in known if pair[0] in modules} - {(mutant.module, mutant.name) for mutant in drawn}
    if unknown:
        raise SystemExit(f"{EQUIVALENT}: no such mutants now, remove or mend the lines: {sorted(unknown)}")
    if options.sample is not None and options.sample < len(drawn):
        drawn = random.Random(options.seed).sample(drawn, options.sample)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy is removed
    if options.list:
        for mutant in drawn:
            print(f"{mutant.module} | {mutant.name}")
        return 0
    return report(drawn, modules, known, options.most)


if __name__ == "__main__":
    sys.exit(main())
