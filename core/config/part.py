from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tree: Any) -> Any:
        """A choice whose `kind` is not named is of the default's kind, so that `model.weights.rank=4` is enough."""
        if not isinstance(tree, dict):
            return tree  # pyright: ignore[reportUnknownVariableType]
        filled = dict(cast(dict[str, Any], tree))
        for name, field in cls.model_fields.items():
            if field.discriminator and isinstance(filled.get(name), dict):
                filled[name] = {"kind": field.default.kind, **filled[name]}
        return filled
