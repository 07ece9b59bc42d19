"""The base class of every part of the config."""

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Frozen; refuses unknown fields, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tree: Any) -> Any:
        """A union without `kind` gets the kind of its default, so that `model.weights.rank=4` is enough."""
        if not isinstance(tree, dict):
            return tree  # pyright: ignore[reportUnknownVariableType]
        filled = dict(cast(dict[str, Any], tree))
        for name, field in cls.model_fields.items():
            if field.discriminator and isinstance(filled.get(name), dict):
                filled[name] = {"kind": field.default.kind, **filled[name]}
        return filled
