"""Parameters that several paths have. What they take is what the document says, and nothing that resembles it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGITS = re.compile(r"[0-9]{1,10}")


def _boolean(value: Any) -> Any:
    """Without yes, on and 1."""
    if value in ("true", "false", True, False):
        return value
    raise ValueError("is neither true nor false")


def _number(value: Any) -> Any:
    """Without +1, 1.0, 1_0 and blanks."""
    if isinstance(value, str) and _DIGITS.fullmatch(value) is None:
        raise ValueError("is not a whole number")
    return value


Number = Annotated[int, BeforeValidator(_number)]


class Look(BaseModel):
    """Of a long list, a part."""

    model_config = ConfigDict(extra="forbid")

    limit: Number = Field(100, ge=1, le=500, description="how many at the most")
    offset: Number = Field(0, ge=0, le=1_000_000_000, description="how many to leave out before them")


class Switches(BaseModel):
    """How a change is to be made. A switch that is misspelled must not make the change for real."""

    model_config = ConfigDict(extra="forbid")

    dry_run: Annotated[bool, BeforeValidator(_boolean)] = Field(
        False, description="answer as if it were done, and change nothing"
    )


NodeId = Annotated[
    str,
    Path(
        description="the node's UUID",
        json_schema_extra={"format": "uuid"},
        examples=["3f0b5f4e-8f0c-4d0a-9a43-1f6d6c6f0b11"],
    ),
]
Part = Annotated[Look, Query()]
How = Annotated[Switches, Query()]


def uuid_of(text: str) -> str | None:
    """A UUID as the registry keeps it; None for what is none."""
    return text.lower() if _UUID.fullmatch(text) else None
