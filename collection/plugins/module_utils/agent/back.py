# Copyright (c) 2026, vpnfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The privileged process: it trusts no word of the front's, checks signatures itself, and carries out the calls.

It takes nothing from the network but what the front hands it through the channel.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict

from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent import limits
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.answers import Answer, error
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.authentication import Authentication
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.calls import call
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.frames import (
    BrokenFrame,
    Bytes,
    receive,
    send,
)
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.journal import tell
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.agent.replay import CannotRemember
from ansible_collections.vpnfleet.wireguard.plugins.module_utils.errors import WireGuardError, shown

_METHOD = re.compile(r"[A-Z]{1,16}")
_PATH = re.compile(rf"[\x21-\x7e]{{1,{limits.LONGEST_PATH}}}")


class Back:
    """Carries out the calls of one front, several at a time."""

    def __init__(
        self, channel: socket.socket, authentication: Authentication, pool: ThreadPoolExecutor
    ) -> None:
        self._channel = channel
        self._authentication = authentication
        self._pool = pool
        self._sending = threading.Lock()
        self._free = threading.Semaphore(limits.MOST_CALLS)

    def serve(self, ready: Callable[[], None]) -> None:
        """Take calls until the front ends, or is not to be trusted any more. Its first word is that it is ready."""
        heard = False
        try:
            while True:
                self._free.acquire()
                fields, body = receive(self._channel, limits.LONGEST_BODY)
                if not heard:
                    if fields != {"ready": True}:
                        raise BrokenFrame("it does not say that it is ready")
                    heard = True
                    self._free.release()
                    ready()
                    continue
                number = fields.get("id")
                if not isinstance(number, int) or isinstance(number, bool):
                    raise BrokenFrame("a call without a number")
                self._pool.submit(self._carry_out, fields, body)
        except (EOFError, OSError):
            pass
        except BrokenFrame as problem:
            tell(f"the front is not to be trusted: {problem}")
        except Exception as problem:  # no memory, no thread: whoever started this sees to a new start
            tell(f"the front cannot be served any more: {type(problem).__name__} at {_where(problem)}")
        finally:
            # A front that has lost its mind must not be left waiting.
            try:
                self._channel.shutdown(socket.SHUT_RD)
            except OSError:
                pass

    def _carry_out(self, fields: Dict[str, Any], body: Bytes) -> None:
        start = time.monotonic()
        try:
            try:
                answer = self._answer(fields, body)
                text = json.dumps(answer.body, separators=(",", ":")).encode("ascii")
                if len(text) > limits.LONGEST_ANSWER:
                    answer = error(500, "the answer is too long")
                    text = json.dumps(answer.body).encode("ascii")
            except Exception as problem:  # the agent goes on, and tells where it went wrong but not with what
                tell(f"{type(problem).__name__} in {shown(fields.get('path'))}: {_where(problem)}")
                answer = error(500, "the agent has an error; its journal says more")
                text = json.dumps(answer.body).encode("ascii")
            said = {"id": fields["id"], "status": answer.status, "headers": answer.headers}
            tell(
                f"{shown(fields.get('peer'))} {shown(fields.get('method'))} {shown(fields.get('path'))} "
                f"{answer.status} {time.monotonic() - start:.3f} s"
            )
            with self._sending:
                send(self._channel, said, text)
        except OSError:
            pass  # the front has ended; what was asked for is done all the same
        except Exception as problem:  # it would wait for this answer for ever
            tell(f"an answer cannot be given: {type(problem).__name__} at {_where(problem)}")
            self._channel.shutdown(socket.SHUT_RDWR)
        finally:
            self._free.release()

    def _answer(self, fields: Dict[str, Any], body: Bytes) -> Answer:
        method, path, signature, timestamp = (
            fields.get(name) for name in ("method", "path", "signature", "timestamp")
        )
        if not all(isinstance(text, str) for text in (method, path, signature, timestamp)):
            return error(400, "the request is none")
        # The front has seen to both; but a word of its that was not so must not be signed, told or looked for.
        if _METHOD.fullmatch(str(method)) is None or _PATH.fullmatch(str(path)) is None:
            return error(400, "the request is none")
        try:
            refusal = self._authentication.refusal(
                str(method), str(path), body, str(signature), str(timestamp)
            )
        except CannotRemember as problem:
            tell(str(problem))
            return error(503, "the request could not be remembered, and so not carried out", Retry_After="5")
        if refusal:
            return error(401, refusal)
        try:
            return call(str(method), str(path), body)
        except WireGuardError as problem:
            return error(500, str(problem))


def _where(problem: BaseException) -> str:
    trace, places = problem.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-6:])
