# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shells on any hosts of the inventory, for a task that works on many of them at once.

Ansible itself gives a task one connection. This makes others as its TaskExecutor does: the connection and become
plugins that a host's variables name, with the options that these, the task, the command line and ansible.cfg set.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleValueOmittedError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.play_context import PlayContext
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar

_SSH = ("ssh", "ansible.builtin.ssh")
#: What names a host to the plugin ssh; the last of them that is set is taken.
_ADDRESS = ("inventory_hostname", "ansible_host", "ansible_ssh_host")


@dataclass(frozen=True)
class NodeShell:
    """How commands are run on one host; from any thread, by one at a time."""

    action: ActionBase

    def run(self, command: str, stdin: str) -> tuple[int, str, str]:
        """Run a command there; returns its exit code, stdout and stderr. Raises AnsibleConnectionFailure when the host
        cannot be reached, else AnsibleError.

        What it prints may be secret: with -vvv nothing of it is shown. Ansible's debug output knows no such exception,
        and nothing is run then.
        """
        if C.DEFAULT_DEBUG:
            raise AnsibleError("with ANSIBLE_DEBUG, secrets of the node would be shown: it is not looked at")
        done = self.action._low_level_execute_command(command, in_data=stdin.encode())
        return int(done["rc"]), str(done["stdout"]), str(done["stderr"])


class NodeShells:
    """Makes them for one task. To look up a plugin's options takes milliseconds; for hosts that differ in nothing but
    where they are, it is done once."""

    def __init__(self, action: ActionBase) -> None:
        self._given = action
        self._task = action._task.copy(exclude_parent=True)
        self._task._parent = action._task._parent
        self._task.delegate_to = None  # that is where the action itself is
        self._models: dict[str, ActionBase] = {}

    def shell(self, variables: Mapping[str, Any]) -> NodeShell:
        """The shell of the host that has these variables, as they are. Raises AnsibleError."""
        templar = Templar(loader=self._given._loader, variables=variables)
        names = _Names(variables, templar)
        connection = names.value("ansible_connection") or self._task.connection
        asked = names.value("ansible_become")
        become = None
        if self._task.become if asked is None else boolean(asked):
            become = str(names.value("ansible_become_method") or self._task.become_method)
        if connection not in _SSH:
            return NodeShell(self._make(variables, templar, connection, become))
        model = self._models.get(names.all_of(connection, become))
        if model is None:
            model = self._make(variables, templar, connection, become)
            # Not until now is known which variables these plugins take.
            self._models[names.all_of(connection, become)] = model
        address = next(
            value for value in (names.value(name) for name in reversed(_ADDRESS)) if value is not None
        )
        return NodeShell(_elsewhere(model, str(address)))

    def _make(
        self, variables: Mapping[str, Any], templar: Templar, name: str, become_method: str | None
    ) -> ActionBase:
        task, given = self._task, self._given._play_context
        context = PlayContext(passwords={"conn_pass": given.password, "become_pass": given.become_pass})
        context = context.set_task_and_variable_override(task, variables, templar)
        context.post_validate(templar=templar)
        context.remote_addr = context.remote_addr or variables["inventory_hostname"]
        context.connection = name
        context.no_log = True
        connection = connection_loader.get(
            name, context, new_stdin=None, task_uuid=task._uuid, ansible_playbook_pid=str(os.getppid())
        )
        if connection is None:
            raise AnsibleError(f"the connection plugin '{name}' was not found")
        become = None if become_method is None else become_loader.get(become_method)
        if become_method is not None and become is None:
            raise AnsibleError(f"the become method '{become_method}' was not found")
        connection.set_become_plugin(become)
        keys = task.dump_attrs()
        # A task's own of these names are of something else.
        keys["timeout"] = context.timeout
        del keys["retries"]
        if context.password:
            keys["password"] = context.password
        connection.set_options(
            task_keys=keys, var_options=connection._resolve_option_variables(variables, templar)
        )
        _set_options(connection._shell, "shell", variables, templar, keys)
        if become is not None:
            if getattr(become, "require_tty", False) and not getattr(connection, "has_tty", False):
                raise AnsibleError(f"{become.name} needs a terminal, and the connection {name} has none")
            if context.become_pass:
                keys["become_pass"] = context.become_pass
            _set_options(become, "become", variables, templar, keys)
            context.set_become_plugin(become.name)
            context.prompt = become.prompt
        action = copy.copy(self._given)
        action._task, action._play_context, action._connection = task, context, connection
        return action


_MAGIC = {name for names in C.MAGIC_VARIABLE_MAPPING.values() for name in names}


class _Names:
    """A host's variables, evaluated when they are asked for."""

    def __init__(self, variables: Mapping[str, Any], templar: Templar) -> None:
        self._variables = variables
        self._templar = templar
        self._known: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        """One of them, or None."""
        if self._variables.get(name) is None:
            return None
        if name not in self._known:
            try:
                self._known[name] = self._templar.template(self._variables[name])
            except AnsibleValueOmittedError:
                self._known[name] = None
        return self._known[name]

    def all_of(self, connection: str, become: str | None) -> str:
        """What two hosts have in common that are reached alike, but for the address."""
        names = {*_MAGIC, *C.config.get_plugin_vars("connection", connection)}
        names.update(C.config.get_plugin_vars("shell", "sh"))
        if become is not None:
            names.update(C.config.get_plugin_vars("become", become))
        names &= self._variables.keys()
        names.difference_update(_ADDRESS)
        return repr((connection, become, [(name, self.value(name)) for name in sorted(names)]))


def _elsewhere(model: ActionBase, address: str) -> ActionBase:
    """The same on another host: nothing that it will note of its connection is shared."""
    action, connection = copy.copy(model), copy.copy(model._connection)
    context = copy.copy(model._play_context)
    context.remote_addr = address
    # What set_option does, a millisecond later.
    connection._options = {**connection._options, "host": address}
    connection.host = address
    connection._play_context = context
    connection._shell = copy.copy(connection._shell)
    connection.set_become_plugin(copy.copy(connection.become))
    action._play_context, action._connection = context, connection
    return action


def _set_options(
    plugin: Any, kind: str, variables: Mapping[str, Any], templar: Templar, keys: dict[str, Any]
) -> None:
    options = {}
    for name in C.config.get_plugin_vars(kind, plugin._load_name):
        if name in variables:
            try:
                options[name] = templar.template(variables[name])
            except AnsibleValueOmittedError:
                pass
    plugin.set_options(task_keys=keys, var_options=options)
