"""Files that ship with every installation: `configs/*.yaml`, and the embedded model with its questions.

In a checkout, `configs` and `models` here are symbolic links to the folders at the root; a wheel holds copies of the
files named under `package-data` in pyproject.toml. So the same path works in both. No code lives here but the lookup.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
FOLDERS = ("configs/", "models/")
PROGRAM = "./run" if (FOLDER.parents[1] / "run").is_file() else "ratchet"
"""What a user types before a command: in a checkout, or with an installed wheel."""


def found(path: str) -> str:
    """The absolute path of the shipped file, if `path` does not exist in the current folder; else `path` itself."""
    if not path.startswith(FOLDERS) or ".." in Path(path).parts or Path(path).exists():
        return path
    return str(FOLDER / path) if (FOLDER / path).exists() else path
