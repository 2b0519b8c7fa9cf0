"""What texts look like, for the document: patterns that say what the registry's checks say, in the regular expressions
of JSON Schema (ECMA-262, which Python reads the same way). Where a length bounds a text too, it stands beside them.

A field whose rule is no matter of form, such as a network without host bits, has a `format` in the place of a pattern.
"""

from __future__ import annotations

from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry import names
from ansible_collections.vpnfleet.wireguard.plugins.plugin_utils.registry.node_fields import (
    COUNTRY as _COUNTRY,
)

_LABELS = rf"{names.LABEL}(?:\.{names.LABEL})*"
# Not of digits alone: 10.0.0.256 is no name.
_LAST_LABEL = (
    "(?:[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    "|(?![0-9]+(?![A-Za-z0-9-]))[0-9][A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)
_SHORT = f"(?![A-Za-z0-9.-]{{{names.LONGEST_HOST_NAME + 1}}})"
_HOST = rf"{_SHORT}(?:{names.LABEL}\.)*{_LAST_LABEL}"

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_HEX = "[0-9A-Fa-f]{1,4}"
_LAST32 = f"(?:{_HEX}:{_HEX}|{_IP4})"
# RFC 3986, 3.2.2.
_IP6 = (
    f"(?:(?:{_HEX}:){{6}}{_LAST32}|::(?:{_HEX}:){{5}}{_LAST32}"
    + "".join(
        f"|(?:(?:{_HEX}:){{0,{before}}}{_HEX})?::(?:{_HEX}:){{{4 - before}}}{_LAST32}" for before in range(5)
    )
    + f"|(?:(?:{_HEX}:){{0,5}}{_HEX})?::{_HEX}|(?:(?:{_HEX}:){{0,6}}{_HEX})?::)"
)
# 1 to 65535, in five digits at the most.
_PORT = (
    "(?:0{0,4}[1-9]|0{0,3}[1-9][0-9]|0{0,2}[1-9][0-9]{2}|0?[1-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}"
    "|655[0-2][0-9]|6553[0-5])"
)
_PLACE = rf"(?:{_HOST}|{_IP4}|\[{_IP6}\])(?::{_PORT})?"
_NAME_SERVER = f"(?:{_IP4}|{_IP6}|{_HOST})"


def _any_case(word: str) -> str:
    return "".join(f"[{each.upper()}{each}]" if each.isalpha() else each for each in word)


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _or_empty(pattern: str) -> str:
    """Of a field in which an empty text is as null."""
    return f"^(?:{pattern})?$"


_MEANING_MORE = "|".join(_any_case(word).replace(".", r"\.") for word in sorted(names.OTHERWISE))

EMAIL = _whole(
    rf"(?![^@]{{{names.LONGEST_LOCAL_PART + 1}}}){names.LOCAL_PART}@(?:{names.LABEL}\.)+{_LAST_LABEL}"
)
NODE_NAME = _whole(rf"(?!(?:{_MEANING_MORE})$){_LABELS}")
HOST = _or_empty(f"{_HOST}|{_IP4}|{_IP6}")
USER = _or_empty("[A-Za-z0-9_][A-Za-z0-9._-]*(?:@[A-Za-z0-9.-]+)?")
PROGRAM = _or_empty("(?:/[A-Za-z0-9._+-]+)+")
URL = _or_empty(f"https?://{_PLACE}/?")
ENDPOINT = _or_empty(f"{_PLACE}|{_IP6}")
INTERFACE = _whole("(?!(?:all|lo)$)[A-Za-z0-9_=+][A-Za-z0-9_=+.-]{0,14}")
COUNTRY = _or_empty(_COUNTRY)
#: Of a device: nothing that would break a line.
LABEL = r"^[^\u0000-\u001f\u007f]*$"
NAME_SERVERS = f"^ *(?:{_NAME_SERVER} *(?:, *{_NAME_SERVER} *)*)?$"
