"""Parameters that several paths have. What they take is what the document says, and nothing that resembles it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api_shim.routes import patterns

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DIGITS = re.compile(r"[0-9]{1,10}")


def boolean(value: Any) -> Any:
    """Without yes, on and 1."""
    if value in ("true", "false", True, False):
        return value
    raise ValueError("is neither true nor false")


def _number(value: Any) -> Any:
    """Without +1, 1.0, 1_0 and blanks."""
    if isinstance(value, str) and _DIGITS.fullmatch(value) is None:
        raise ValueError("is not a whole number")
    return value


#: What the document says of a customer's e-mail.
EMAIL: dict[str, Any] = {"pattern": patterns.EMAIL, "examples": ["user@example.com"]}
#: The same of a node's name.
NODE_NAME: dict[str, Any] = {"pattern": patterns.NODE_NAME, "examples": ["nl1.example.com"]}


class Accepted(BaseModel):
    """Recorded, and to be carried out whatever happens."""

    status: Literal["accepted"]
    message: str
    operation_id: str = Field(examples=["0b1c6a3e-52d4-4c3b-9d1f-6f0f6c1c9b52"])


class Planned(BaseModel):
    """What a dry run answers."""

    dry_run: bool = Field(default=False, description="whether it is a plan")
    plan: dict[str, Any] | None = Field(default=None, description="of a dry run: what would be done")


class Body(BaseModel):
    """What a changing call takes: these fields and no others, and no text where a number is meant."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, given: Any) -> Any:
        """To JSON, 25.0 is the same as 25."""
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }


Number = Annotated[int, BeforeValidator(_number)]


class Look(BaseModel):
    """Of a long list, a part."""

    model_config = ConfigDict(extra="forbid")

    limit: Number = Field(100, ge=1, le=500, description="how many at the most")
    offset: Number = Field(0, ge=0, le=1_000_000_000, description="how many to leave out before them")


class Switches(BaseModel):
    """How a change is to be made. A switch that is misspelled must not make the change for real."""

    model_config = ConfigDict(extra="forbid")

    dry_run: Annotated[bool, BeforeValidator(boolean)] = Field(
        False, description="answer as if it were done, and change nothing"
    )


Prefer = Annotated[
    str | None,
    Header(description="RFC 7240: `respond-async` does not wait for the end", examples=["respond-async"]),
]


IdempotencyKey = Annotated[
    str | None,
    Header(
        description="a name for this call: the same again is answered as it was",
        json_schema_extra={"pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    ),
]


def waiting(prefer: Prefer = None) -> None:
    """Says in the document what every call takes that runs a playbook."""


def repeatable(prefer: Prefer = None, idempotency_key: IdempotencyKey = None) -> None:
    """The same of one that changes something."""


def repeatable_at_once(idempotency_key: IdempotencyKey = None) -> None:
    """The same of one that changes something, and runs no playbook."""


#: What such calls can answer besides their own.
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "It takes longer, or the caller does not want to wait: it is carried out",
        "model": Accepted,
        "headers": {"Location": {"schema": {"type": "string"}, "description": "where to look for its end"}},
    },
    500: {
        "description": "It failed, or a node could not be reached: `Location` leads to its operation, which says "
        "whether it is `pending`: recorded, and tried again by itself"
    },
}
REPEATED: dict[int | str, dict[str, Any]] = {
    **ACCEPTED,
    404: {"description": "What the call names is not in the registry"},
    409: {
        "description": "It contradicts what is there, or the operation was canceled; or the call with this "
        "Idempotency-Key is still being carried out"
    },
    410: {},
    422: {},
}

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
