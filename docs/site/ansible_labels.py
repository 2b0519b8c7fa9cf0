"""What antsibull-docs links to in Ansible's own documentation is text here: no other site is asked what it has."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

#: Of all labels that are missing, these alone: a link of ours that leads nowhere stays an error.
_OF_ANSIBLE = (
    "ansible_collections.ansible.",
    "action_plugins",
    "ansible_configuration_settings",
    "common_return_values",
)


def as_text(_app: Sphinx, _env: Any, node: nodes.Element, content: nodes.TextElement) -> nodes.Node | None:
    """The text of a link to one of Ansible's labels; None for other links."""
    return content if str(node.get("reftarget", "")).startswith(_OF_ANSIBLE) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Answer for what Sphinx does not find."""
    app.connect("missing-reference", as_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
