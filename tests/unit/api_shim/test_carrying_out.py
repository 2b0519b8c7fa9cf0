"""What a result of an operation means to who asked for it."""

from __future__ import annotations

from typing import Any

import pytest

from api_shim.carrying_out import _problem_of

ONE = {"status": "error", "code": 502, "message": "no way"}


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"status": "success", "operations": []}, None),
        ({"status": "error", "operations": [ONE]}, 502),
        ({"status": "error", "operations": [], "message": "it could not begin"}, 500),
        # No node of the fleet could be read, and that is what the report says of each.
        ({"status": "error", "operations": [ONE, ONE], "data": {"nodes": {}}}, None),
    ],
)
def test_what_is_a_problem(result: dict[str, Any], status: int | None) -> None:
    problem = _problem_of(result)
    assert (None if problem is None else problem.status) == status
