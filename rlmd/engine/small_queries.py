"""A sub-query a line: watched for, told, then capped. Counts only; who is told what stands in ``conversation.py``."""

from __future__ import annotations

from dataclasses import dataclass

from rlmd.events import Limits

#: Sub-queries with a prompt under this share of what one may hold are small: many of them belong into one.
_SMALL_SHARE, _SMALL_CHARS = 0.1, 1000
#: Small ones after which the root is told, and the share of the purse beyond which no more are sent.
_SMALL_TOLD, _SMALL_CAP, _SMALL_CAP_SHARE = 50, 200, 0.1


@dataclass(slots=True)
class SmallQueries:
    """Watches for a sub-query a line, which costs thousands (arXiv 2512.24601, appendix B.3): told, then capped.

    Args:
        cap: How many may be sent; those that the cache answers do not count.
    """

    cap: int
    sent: int = 0
    chars: int = 0
    told: bool = False

    def warn(self) -> bool:
        """Whether the root is to be told now; once for each doubling of the waste would be nagging: once, and again
        when the cap is reached."""
        if self.sent >= self.cap or (self.sent >= _SMALL_TOLD and not self.told):
            self.told = True
            return True
        return False

    def advice(self, piece_chars: int) -> str:
        mean = max(1, self.chars // max(1, self.sent))
        together = max(2, piece_chars // mean)
        capped = f" No more than {self.cap:,} such small ones are sent." if self.sent >= self.cap else ""
        return (
            f"{self.sent:,} sub-queries held only some {mean:,} characters each. A prompt holds {piece_chars:,}: put "
            f"about {together:,} of them into one and ask for one line each.{capped}"
        )


def is_small(chars: int, piece_chars: int) -> bool:
    """Whether a prompt holds so little that many of its kind belong into one."""
    return chars < min(_SMALL_CHARS, _SMALL_SHARE * piece_chars)


def small_queries(limits: Limits) -> SmallQueries:
    """The watch over one run's small sub-queries."""
    return SmallQueries(max(_SMALL_CAP, int(limits.sub_queries * _SMALL_CAP_SHARE)))
