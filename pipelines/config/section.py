"""The base class of configuration sections, and the types of their values."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

from engine.paths import is_remote_model, path_from_text, utf8_text
from pipelines.config.hints import section_of


class Section(BaseModel):
    """A group of keys; rejects unknown keys and non-finite numbers (`.inf`, `.nan`).

    A number in place of a text is used as written (`uri: 0`). `true` for a section means its defaults
    (`record: true`), and `false` for one that may be left out means null.
    """

    EXAMPLE: ClassVar[str] = ""
    """What to write in place of a bare value: its most common key."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        defer_build=True,  # only sections that are validated by themselves need a validator of their own
    )

    @model_validator(mode="before")
    @classmethod
    def _switches(cls, value: Any) -> Any:
        """Expand a switch in place of a section, and explain what to write instead of a bare value."""
        if not isinstance(value, dict):
            if isinstance(value, str | int | float | list):
                example = f": write it as {cls.EXAMPLE}" if cls.EXAMPLE else ""
                raise ValueError(f"expected a group of keys{example}")
            return value
        switches = {key: value[key] for key in cls.model_fields if isinstance(value.get(key), bool)}
        optional: dict[str, Any] = {
            key: {} if is_on else None
            for key, is_on in switches.items()
            if section_of(cls.model_fields[key].annotation) and cls.model_fields[key].default is None
        }
        return {**value, **optional}


def _plain_path(value: str) -> str:
    return value if not value or is_remote_model(value) else os.fspath(path_from_text(value))


FilePath = Annotated[str, AfterValidator(_plain_path)]
"""A file or folder: plain, with `~` or `~name`, or a `file://` URI."""


def any_file_name(value: Any, check: Callable[[Any], Any]) -> Any:
    """Accept file names that are not UTF-8 unchanged; pydantic does not support such text."""
    return value if isinstance(value, str) and not value.isascii() and utf8_text(value) != value else check(value)


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a class is given by name or number: quote a name such as 'true'")
    return value


ClassName = Annotated[StrictStr | StrictInt, BeforeValidator(_no_switch)]
"""A class of the model, by name or number."""

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Name of one of several models."""

PRECISIONS = {"fp32": "f32", "fp16": "f16", "half": "f16", "float16": "f16", "float32": "f32", "bfloat16": "bf16"}


def precision_name(value: Any) -> Any:
    """Translate another tool's name of a numeric precision to the one that backends use."""
    return PRECISIONS.get(value, value) if isinstance(value, str) else value
