"""Which encoding a text has that is no UTF-8: found by what its bytes look like, and told.

UTF-8 with some stray bytes stays UTF-8: logs have them. Knows bytes, no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Bytes that are looked at, from before the first one that is no UTF-8: more takes time and finds no better.
SAMPLE_BYTES = 16 << 10
_LEAD_BYTES = 1 << 10
#: In the order in which they are preferred. What people still have on disk; others are rarer than mistakes.
_CANDIDATES = (
    "cp1252", "cp1250", "iso8859_2", "cp1251", "koi8_r", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp1253",
    "cp1255", "cp1256",
)  # fmt: skip
#: Below this share of known letter pairs a finding is a guess, and the commonest encoding a better one.
_SURE = 0.1
_NAMES = {name: name.replace("_", "-").replace("iso8859", "iso-8859") for name in _CANDIDATES}


def without_mark(head: bytes) -> str | None:
    """UTF-16 whose byte order mark is missing: every other byte of what is mostly Latin text is NUL."""
    half = len(head) // 2
    if half < 2:
        return None
    even, odd = head[0 : 2 * half : 2].count(0), head[1 : 2 * half : 2].count(0)
    if odd > half // 2 and even < half // 50 + 1:
        return "utf-16-le"
    if even > half // 2 and odd < half // 50 + 1:
        return "utf-16-be"
    return None


def sample_around(offset: int) -> int:
    """Where a sample begins that shows what the byte at ``offset`` is."""
    return max(0, offset - _LEAD_BYTES)


def of_sample(sample: bytes) -> str | None:
    """The encoding of a text of which these are some bytes; None where it is UTF-8 with stray bytes."""
    text = sample.decode("utf-8", "surrogateescape")
    stray = sum("\udc80" <= letter <= "\udcff" for letter in text)
    if not stray or sum(letter > "\x7f" for letter in text) - stray >= stray:
        return None
    from charset_normalizer import from_bytes  # 20 ms, which few loads need

    found: Sequence[Any] = list(from_bytes(sample, cp_isolation=list(_CANDIDATES)))
    if not found:
        return "cp1252" if b"\x00" not in sample else None
    best = found[0]
    name = "cp1252" if best.coherence < _SURE and any(_covers(one, "cp1252") for one in found) else best.encoding
    if name != "cp1252" and _covers(best, "cp1252"):
        name = "cp1252"
    return _NAMES.get(name, str(name))


def _covers(match: Any, name: str) -> bool:
    """Whether a finding reads the same in another encoding too."""
    return name == match.encoding or name in match.could_be_from_charset
