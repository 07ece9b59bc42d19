"""`./run bench NAME [--quick] ...` runs one benchmark; its last line is one JSON object. Without a name: lists them."""

import argparse
import ast
import importlib
import json
import sys
from pathlib import Path

from bench._record import Surroundings


def questions() -> dict[str, str]:
    """Benchmark -> its question, which is the first line of its module docstring. Imports none of them."""
    files = [file for file in sorted(Path(__file__).parent.glob("*.py")) if not file.name.startswith("_")]
    documented = {file.stem.replace("_", "-"): ast.get_docstring(ast.parse(file.read_text())) or "" for file in files}
    return {name: text.partition("\n")[0] for name, text in documented.items()}


def main() -> None:
    known = questions()
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        for name, question in known.items():
            print(f"  {name:12} {question}")
        sys.exit(f"usage: ./run bench NAME   ({', '.join(known)})" if len(sys.argv) > 1 else 0)
    module = importlib.import_module(f"bench.{sys.argv[1].replace('-', '_')}")
    parser = argparse.ArgumentParser(prog=f"./run bench {sys.argv[1]}", description=module.__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller run, under a minute where possible")
    if hasattr(module, "arguments"):
        module.arguments(parser)
    options = parser.parse_args(sys.argv[2:])
    surroundings = Surroundings(module, options)
    print(json.dumps({**module.run(options), "quick": options.quick, **surroundings.found()}))


if __name__ == "__main__":
    main()
