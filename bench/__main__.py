"""`./run bench NAME [--quick] ...` runs one benchmark; its last line is one JSON object. Without a name: lists them."""

import argparse
import importlib
import json
import pkgutil
import sys
from types import ModuleType

import bench
from bench._record import Surroundings


def names() -> dict[str, str]:
    """Benchmark -> its question, which is the first line of its module docstring."""
    modules = [m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_")]
    return {name.replace("_", "-"): (module_of(name).__doc__ or "").splitlines()[0] for name in modules}


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name.replace('-', '_')}")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in names():
        for name, question in names().items():
            print(f"  {name:12} {question}")
        sys.exit(f"usage: ./run bench NAME   ({', '.join(names())})" if len(sys.argv) > 1 else 0)
    module = module_of(sys.argv[1])
    parser = argparse.ArgumentParser(prog=f"./run bench {sys.argv[1]}", description=module.__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute where possible")
    if hasattr(module, "arguments"):
        module.arguments(parser)
    options = parser.parse_args(sys.argv[2:])
    surroundings = Surroundings(module, options)
    print(json.dumps({**module.run(options), "quick": options.quick, **surroundings.found()}))


if __name__ == "__main__":
    main()
