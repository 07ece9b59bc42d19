"""`ratchet cluster-file`: merges cluster.yaml with other files, for another cloud or for your own machines."""

from pathlib import Path

import yaml

from core.errors import ConfigError

BASE = Path("cluster.yaml")


def merged(base: Path, differences: list[Path]) -> dict[str, object]:
    """Mappings are merged, all other values are replaced, and null removes a key. Raises: ConfigError."""
    if not base.is_file():
        raise ConfigError(
            f"no {base} in this folder; run this in a checkout of the repository, which `ray up` copies to each node"
        )
    tree = _read(base)
    for difference in differences:
        tree = laid_over(tree, _read(difference))
    return tree


def laid_over(tree: dict[str, object], difference: dict[str, object]) -> dict[str, object]:
    kept = {key: value for key, value in tree.items() if difference.get(key, "") is not None}
    for key, value in difference.items():
        if isinstance(value, dict):
            there = kept.get(key)
            kept[key] = laid_over(there if isinstance(there, dict) else {}, value)
        elif value is not None:
            kept[key] = value
    return kept


def _read(file: Path) -> dict[str, object]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds {type(tree).__name__}, expected a mapping as in {BASE}")
    return tree
