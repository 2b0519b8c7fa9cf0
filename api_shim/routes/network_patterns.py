"""What networks look like, for the document: patterns that match no network with host bits set.

The usual forms; what is taken, the registry decides.
"""

from __future__ import annotations

BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = "[0-9A-Fa-f]{1,4}"
IP4 = rf"{BYTE}(?:\.{BYTE}){{3}}"
IP6 = rf"(?:(?:{_HEX}:){{7}}{_HEX}|(?:{_HEX}:){{1,6}}:{_HEX}|(?:{_HEX}:){{1,7}}:)"


def _partly() -> list[str]:
    """Bytes whose last 7, 6, … 1 bits are 0."""
    few = ["|".join(str(value) for value in range(0, 256, 2**bits)) for bits in range(7, 2, -1)]
    # Multiples of 4 and of 2, by their last digits.
    fours = "[048]|[2468][048]|[13579][26]|1[02468][048]|1[13579][26]|2[024][048]|2[13][26]|252"
    return [f"(?:{each})" for each in (*few, fours, "25[024]|2[0-4][02468]|1[0-9][02468]|[1-9]?[02468]")]


def networks4(first: str = BYTE) -> str:
    """IPv4 networks of /8 to /30; `first` is the pattern of the first byte."""
    forms = []
    for whole in (1, 2, 3):
        head = first + rf"\.{BYTE}" * (whole - 1)
        forms.append(head + r"\.0" * (4 - whole) + f"/{8 * whole}")
        partly = [
            byte + r"\.0" * (3 - whole) + f"/{8 * whole + bits}"
            for bits, byte in enumerate(_partly(), 1)
            if 8 * whole + bits <= 30
        ]
        forms.append(rf"{head}\.(?:{'|'.join(partly)})")
    return f"(?:{'|'.join(forms)})"


# Of the first byte, what hosts can have: no loopback, no link-local, no multicast.
POOL = networks4(
    "(?:[1-9]|[1-9][0-9]|1[01][0-9]|12[0-6]|12[89]|1[3-5][0-9]|16[0-8]|1[78][0-9]|19[0-9]|2[01][0-9]|22[0-3])"
)
# Unique local and global unicast.
POOL6 = rf"(?:f[cd]|[23][0-9a-f])[0-9a-f]{{2}}(?::{_HEX}){{0,2}}::/(?:48|56|64)"
NETWORK = rf"(?:0\.0\.0\.0/0|{IP4}/32|{networks4()}|::/0|{IP6}/128|(?:{_HEX}:){{1,3}}:/(?:48|56|64))"
