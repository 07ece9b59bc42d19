"""CONTRIBUTING.md tells the truth about the tree; packages say what they are for; files and README stay readable."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ROOMS = ("core", "methods", "training", "serve", "actors")
INDENT = 2
LONGEST_FILE, LONGEST_README, LONGEST_PURPOSE = 400, 150, 4
EXCUSE = "Long because"


def marked(text: str, name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- /name -->`."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found, f"CONTRIBUTING.md has no part between <!-- {name} --> and <!-- /{name} -->"
    return found[1]


def drawn(picture: str) -> Iterator[str]:
    """Paths of the folders in a text tree: each level is indented by two, and each line says what its folder is for."""
    parents: list[str] = []
    for line in picture.splitlines():
        if found := re.match(r"( *)(\w+)/ +\S", line):
            depth = len(found[1]) // INDENT
            parents = [*parents[:depth], found[2]]
            yield "/".join(parents)


def packages() -> list[Path]:
    return sorted(file.parent for room in ROOMS for file in (ROOT / room).rglob("__init__.py"))


def sources() -> list[Path]:
    outside = ("bench", "models", *ROOMS)
    return sorted(file for folder in outside for file in (ROOT / folder).rglob("*.py"))


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def too_long(text: str, said: str) -> bool:
    """Whether a source file is long and gives no reason."""
    excused = any(line.startswith(EXCUSE) for line in said.splitlines())
    return len(text.splitlines()) > LONGEST_FILE and not excused


def test_the_picture_shows_every_package_once_and_nothing_else() -> None:
    assert sorted(drawn(marked(CONTRIBUTING, "layout"))) == [str(folder.relative_to(ROOT)) for folder in packages()]


def test_a_picture_is_read_level_by_level() -> None:
    picture = "serve/  answers\n  engine/   vLLM\n    patches/  of vLLM\n  http/  routes\ncore/  words\n  none/\n"
    assert [*drawn(picture)] == ["serve", "serve/engine", "serve/engine/patches", "serve/http", "core"]


def test_every_file_that_the_first_ten_minutes_name_exists() -> None:
    named = re.findall(r"`([\w/]+\.\w+)`", marked(CONTRIBUTING, "first reading"))
    assert len(named) >= 15
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_every_package_says_in_four_lines_at_most_what_it_is_for() -> None:
    lengths = {folder.relative_to(ROOT): len(docstring(folder / "__init__.py").splitlines()) for folder in packages()}
    assert not {str(name): lines for name, lines in lengths.items() if not 1 <= lines <= LONGEST_PURPOSE}


def test_a_long_file_says_why() -> None:
    assert not [str(file.relative_to(ROOT)) for file in sources() if too_long(file.read_text(), docstring(file))]


def test_a_reason_is_a_line_of_the_docstring() -> None:
    text = "x = 1\n" * (LONGEST_FILE + 1)
    assert too_long(text, "Ports.") and not too_long(text, f"Ports.\n\n{EXCUSE} it is one table.")
    assert not too_long("x = 1\n" * LONGEST_FILE, "")


def test_the_readme_is_read_at_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README
