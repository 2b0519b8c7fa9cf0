"""The objects that a stand-in for AWX keeps: their fields, and what AWX refuses to be told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Answer = tuple[int, Any]

# Fields that can be written, with what they hold when they are left out; what is none of these is passed over, as
# AWX does. `...`: must be given.
_FIELDS: dict[str, dict[str, Any]] = {
    "organizations": {"name": ..., "description": ""},
    "execution_environments": {"name": ..., "image": ..., "organization": None, "pull": ""},
    "credential_types": {"name": ..., "description": "", "kind": ..., "inputs": {}, "injectors": {}},
    "credentials": {
        "name": ...,
        "description": "",
        "organization": None,
        "credential_type": ...,
        "inputs": {},
    },
    "projects": {
        "name": ...,
        "description": "",
        "organization": None,
        "scm_type": "",
        "scm_url": "",
        "scm_branch": "",
        "scm_update_on_launch": False,
        "credential": None,
        "default_environment": None,
    },
    "inventories": {"name": ..., "description": "", "organization": ...},
    "inventory_sources": {
        "name": ...,
        "description": "",
        "inventory": ...,
        "source": ...,
        "source_project": None,
        "source_path": "",
        "credential": None,
        "execution_environment": None,
        "update_on_launch": False,
        "update_cache_timeout": 0,
        "overwrite": False,
        "overwrite_vars": False,
    },
    "job_templates": {
        "name": ...,
        "description": "",
        "job_type": "run",
        "inventory": None,
        "project": None,
        "playbook": "",
        "limit": "",
        "extra_vars": "",
        "execution_environment": None,
        "allow_simultaneous": False,
        "survey_enabled": False,
        "ask_variables_on_launch": False,
        "ask_limit_on_launch": False,
        "ask_job_type_on_launch": False,
        "ask_diff_mode_on_launch": False,
    },
}
_PLAYBOOKS = ("provision", "disconnect", "transfer", "remove", "drift", "reconcile", "nodes")


class Objects:
    """The store: by kind, by id."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in _FIELDS}
        self.surveys: dict[int, dict[str, Any]] = {}
        self.attached: dict[int, list[int]] = {}  # credentials, by job template
        self.secrets: dict[int, dict[str, str]] = {}  # by credential
        self.project_ends = "successful"

    def add(self, kind: str, /, **fields: Any) -> int:
        """An object that is there before anyone asks."""
        number = 1 + sum(len(found) for found in self.kinds.values())
        defaults = {name: None if value is ... else value for name, value in _FIELDS[kind].items()}
        self.kinds[kind][number] = {"id": number, **defaults, **fields}
        if kind == "projects":
            self.kinds[kind][number].setdefault("status", "pending")
        return number

    def one(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = (each for each in self.kinds[kind].values() if each["name"] == name)
        return found

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        if found := re.fullmatch(r"job_templates/(\d+)/(credentials|survey_spec)/", path):
            number = int(found[1])
            if number not in self.kinds["job_templates"]:
                return 404, {"detail": "Not found."}
            if found[2] == "credentials":
                return self._credentials(method, number, query, body, path)
            return self._survey(method, number, body)
        found = re.fullmatch(r"([a-z_]+)/(?:(\d+)/)?", path)
        if not found or found[1] not in self.kinds:
            return 404, {"detail": "The requested resource could not be found."}
        kind, number = found[1], int(found[2] or 0)
        if not number:
            if method == "POST":
                return self._create(kind, body)
            return listed([self._shown(kind, one) for one in self.kinds[kind].values()], query, path, 200)
        if number not in self.kinds[kind]:
            return 404, {"detail": "Not found."}
        if method == "PATCH":
            return self._change(kind, number, body)
        one = self.kinds[kind][number]
        if kind == "projects" and one["status"] in ("pending", "running"):
            one["status"] = "running" if one["status"] == "pending" else self.project_ends
        return 200, self._shown(kind, one)

    def _create(self, kind: str, body: dict[str, Any]) -> Answer:
        missing = {name: ["This field is required."] for name, value in _FIELDS[kind].items()
                   if value is ... and body.get(name) in (None, "")}  # fmt: skip
        if missing:
            return 400, missing
        same = [
            one
            for one in self.kinds[kind].values()
            if one["name"] == body["name"]
            and all(one.get(key) == body.get(key) for key in ("organization", "inventory", "credential_type"))
        ]
        if same:
            return 400, {"__all__": ["An object with this name exists already."]}
        fields = {name: body[name] for name in _FIELDS[kind] if name in body}
        if refused := self._refused(kind, fields):
            return refused
        number = self.add(kind, **fields)
        self._complete(kind, number)
        return 201, self._shown(kind, self.kinds[kind][number])

    def _change(self, kind: str, number: int, body: dict[str, Any]) -> Answer:
        fields = {name: body[name] for name in _FIELDS[kind] if name in body}
        old = self.kinds[kind][number]
        if kind == "inventory_sources":
            fields.pop("inventory", None)
        in_use = any(one["credential_type"] == number for one in self.kinds["credentials"].values())
        if kind == "credential_types" and in_use and fields.get("inputs", old["inputs"]) != old["inputs"]:
            return 403, {
                "detail": "Modifications to inputs are not allowed for credential types that are in use"
            }
        if refused := self._refused(kind, {**old, **fields}):
            return refused
        old.update(fields)
        self._complete(kind, number)
        return 200, self._shown(kind, old)

    def _refused(self, kind: str, fields: dict[str, Any]) -> Answer | None:
        for name, target in (
            ("organization", "organizations"),
            ("credential", "credentials"),
            ("project", "projects"),
            ("source_project", "projects"),
            ("inventory", "inventories"),
            ("credential_type", "credential_types"),
            ("execution_environment", "execution_environments"),
        ):
            if fields.get(name) is not None and fields[name] not in self.kinds[target]:
                return 400, {name: [f'Invalid pk "{fields[name]}" - object does not exist.']}
        for name, value in fields.items():
            default = _FIELDS[kind].get(name)
            if isinstance(default, bool) and not isinstance(value, bool):
                return 400, {name: ["Must be a valid boolean."]}
        if kind == "credential_types" and fields["kind"] not in ("cloud", "net"):
            return 400, {"kind": ["Must be 'cloud' or 'net'"]}
        if kind == "inventory_sources" and fields["source"] == "scm" and not fields.get("source_project"):
            return 400, {"source_project": ["Project required for scm type sources."]}
        if kind == "job_templates":
            project = self.kinds["projects"].get(fields.get("project") or 0)
            if project is None:
                return 400, {"project": ["This field is required."]}
            # What there is in a project is known when it has been fetched.
            there = (
                [f"playbooks/{name}.yml" for name in _PLAYBOOKS] if project["status"] == "successful" else []
            )
            if fields.get("playbook") not in there:
                return 400, {"playbook": ["Playbook not found for project."]}
        return None

    def _complete(self, kind: str, number: int) -> None:
        one = self.kinds[kind][number]
        if kind == "job_templates":
            # A template belongs where its project does, whatever is asked for.
            one["organization"] = self.kinds["projects"][one["project"]]["organization"]
        if kind != "credentials":
            return
        declared = self.kinds["credential_types"][one["credential_type"]]["inputs"].get("fields", [])
        kept = self.secrets.setdefault(number, {})
        for name in [each["id"] for each in declared if each.get("secret")]:
            if one["inputs"].get(name) not in (None, "", "$encrypted$"):
                kept[name] = one["inputs"][name]
                one["inputs"] = {**one["inputs"], name: "$encrypted$"}

    def _shown(self, kind: str, one: dict[str, Any]) -> dict[str, Any]:
        summary = {}
        if kind == "job_templates":
            attached = [self.kinds["credentials"][each] for each in self.attached.get(one["id"], [])]
            summary = {"credentials": [{"id": each["id"], "name": each["name"]} for each in attached]}
        url = f"/api/v2/{kind}/{one['id']}/"
        return {**one, "type": kind.removesuffix("s"), "url": url, "summary_fields": summary}

    def _credentials(self, method: str, template: int, query: dict[str, str], body: Any, path: str) -> Answer:
        attached = self.attached.setdefault(template, [])
        credentials = self.kinds["credentials"]
        if method == "GET":
            return listed(
                [self._shown("credentials", credentials[one]) for one in attached], query, path, 200
            )
        number = body.get("id")
        if number not in credentials:
            return 400, {"error": "no such credential"}
        if body.get("disassociate"):
            attached.remove(number)
            return 204, None
        kind = credentials[number]["credential_type"]
        if kind in [credentials[one]["credential_type"] for one in attached]:
            return 400, {"error": "Cannot assign multiple credentials of this type."}
        attached.append(number)
        return 204, None

    def _survey(self, method: str, template: int, body: Any) -> Answer:
        if method == "GET":
            return 200, self.surveys.get(template, {})
        if method == "DELETE":
            self.surveys.pop(template, None)
            return 200, None
        for name, kind in (("name", str), ("description", str), ("spec", list)):
            if not isinstance(body.get(name), kind):
                return 400, {"error": f"Field '{name}' is missing from survey spec."}
        for index, question in enumerate(body["spec"]):
            for name, wanted in (
                ("type", str),
                ("question_name", str),
                ("variable", str),
                ("required", bool),
            ):
                if not isinstance(question.get(name), wanted):
                    return 400, {"error": f"'{name}' in survey question {index} expected to be {wanted}"}
            if question["type"] == "multiplechoice" and "choices" not in question:
                return 400, {"error": "must specify choices"}
        self.surveys[template] = body
        return 200, None


def listed(rows: Iterable[dict[str, Any]], query: dict[str, str], path: str, largest: int) -> Answer:
    """A page of a list: filtered, ordered and cut as AWX does it; a field that there is not is refused."""
    found = list(rows)
    for key, value in query.items():
        if key in ("order_by", "page", "page_size"):
            continue
        name, _, how = key.partition("__")
        if found and name not in found[0] and name not in ("organization", "inventory"):
            return 400, {"detail": f"{name} is not a field"}
        found = [one for one in found if _matches(one.get(name), how, value)]
    order = query.get("order_by", "id")
    if found and order.lstrip("-") in found[0]:
        found.sort(key=lambda one: one[order.lstrip("-")], reverse=order.startswith("-"))
    size = min(int(query.get("page_size", 25)), largest)
    page = int(query.get("page", 1))
    cut = found[(page - 1) * size : page * size]
    more = len(found) > page * size
    return 200, {
        "count": len(found),
        "next": f"/api/v2/{path}?page={page + 1}" if more else None,
        "previous": None,
        "results": cut,
    }


def _matches(value: Any, how: str, wanted: str) -> bool:
    if how == "gt":
        return bool(value > int(wanted))
    if how == "in":
        return str(value) in wanted.split(",")
    return str(value) == wanted
