"""AWX's REST API: requests, and what it means when one fails."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any

import httpx

from api_shim.settings import Settings

_PAGE = 200
# Of one look at the events: a job that makes more than these must not keep its status from being seen.
_PAGES = 20
_LONGEST = 300  # characters of what AWX says


class Trouble(Exception):
    """Why a run cannot be made or seen to its end, as a person is told it."""


class Away(Trouble):
    """AWX cannot be reached, or cannot serve just now; `maybe_done`: it may have done what was asked for."""

    def __init__(self, message: str, maybe_done: bool, retry_after: float = 0) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
        self.retry_after = retry_after


class Api:
    """AWX as the user of the token sees it."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        """`seconds` is the limit for one answer. Raises ValueError, naming the setting, when one is missing or makes no
        sense."""
        self._client = httpx.Client(
            base_url=_address(settings.awx_url),
            headers={"Authorization": f"Bearer {_token(settings)}", "Accept": "application/json"},
            timeout=seconds,
            verify=_trust(settings),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def newer(self, path: str, key: str, after: int, **filters: Any) -> Iterator[dict[str, Any]]:
        """A list's objects whose `key` is higher than `after`, lowest first.

        The answer's links to further pages are not followed: the token goes where the settings say.
        """
        for _ in range(_PAGES):
            query = {**filters, f"{key}__gt": after, "order_by": key, "page_size": _PAGE}
            answer = self.listed(path, **query)
            yield from answer["results"]
            if not answer.get("next") or not answer["results"]:
                return
            after = int(answer["results"][-1][key])

    def listed(self, path: str, **query: Any) -> dict[str, Any]:
        """A list."""
        answer = answer_of(self.request("GET", path, params=query))
        if not isinstance(answer.get("results"), list):
            raise Away(f"the answer at /api/v2/{path} is none of AWX's", maybe_done=False)
        return answer

    def request(self, method: str, path: str, **what: Any) -> httpx.Response:
        """Raises Away for what may be better a little later, and Trouble for what will not."""
        try:
            response = self._client.request(method, f"/api/v2/{path}", **what)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Away(f"AWX cannot be reached: {shortened(str(error))}", maybe_done=False) from None
        except httpx.RequestError as error:
            raise Away(f"AWX did not answer: {type(error).__name__}", maybe_done=True) from None
        status = response.status_code
        if status == 401:
            raise Trouble("AWX does not know the token: VPNFLEET_AWX_TOKEN is wrong, revoked or expired")
        if status == 429:
            raise Away("AWX takes no more requests just now (429)", False, _retry_after(response))
        if status >= 500:
            # The proxy before AWX may have lost an answer, and AWX fail after it has made the job.
            raise Away(f"AWX answers with an error ({status})", True, _retry_after(response))
        if 300 <= status < 400:
            raise Trouble(f"AWX answers with a redirect ({status}): VPNFLEET_AWX_URL is not its own address")
        return response


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("https", "http") or not address.host or address.userinfo:
        raise ValueError("VPNFLEET_AWX_URL must be AWX's address, such as https://awx.example.com")
    return address


def _token(settings: Settings) -> str:
    token = settings.awx_token.get_secret_value()
    # What is no header would be repeated in the error of whoever sends it.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("VPNFLEET_AWX_TOKEN must be a token of AWX's: it is missing, or no token")
    return token


def _trust(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.awx_ca)
    except OSError:  # which ssl.SSLError is
        raise ValueError(f"VPNFLEET_AWX_CA: {settings.awx_ca} is no file of certificates") from None


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """What a request has found. Raises Trouble, or Away for what does not come from AWX."""
    if response.status_code == 403:
        raise Trouble(f"the user of VPNFLEET_AWX_TOKEN may not read {response.url.path} in AWX")
    if response.status_code != 200:
        raise Trouble(
            f"AWX answers {response.status_code} at {response.url.path}: VPNFLEET_AWX_URL may be wrong"
        )
    return object_of(response)


def object_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises Away when it holds none."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        # A proxy's page about maintenance comes as 200 too.
        raise Away(f"the answer at {response.url.path} is none of AWX's", maybe_done=True)
    return answer


def refusal(response: httpx.Response) -> str:
    """What AWX says of why it does not do something."""
    try:
        return json.dumps(response.json(), ensure_ascii=False)
    except ValueError:
        return "it gives no reason"


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() else 0


def shortened(text: Any) -> str:
    """A text of AWX's on one line, as far as it is told."""
    told = " ".join(str(text or "").split())
    return told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"
