"""Files that every installation brings: `configs/*.yaml`, and the embedded model with its questions.

In a checkout `configs` and `models` here are symbolic links to the folders at the root; a wheel holds copies of what
`package-data` in pyproject.toml names. So one path serves both, and neither folder has to move.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
FOLDERS = ("configs/", "models/")


def found(path: str) -> str:
    """The absolute path of the shipped file, if the current folder has no `path` of its own; else `path` as it is."""
    if not path.startswith(FOLDERS) or ".." in Path(path).parts or Path(path).exists():
        return path
    return str(FOLDER / path) if (FOLDER / path).exists() else path
