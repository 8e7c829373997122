"""The program ``map``: asks the question of every piece of the text, then combines what was found.

Runs in the REPL, so it imports the standard library alone and is handed the scaffold's functions. A piece's prompt
holds the piece and the question and nothing of where it stands, so that an edit elsewhere leaves its reply cached.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any
from zlib import crc32

NOTHING = "NOTHING"
PIECE = """{text}

From the text above alone, find everything that helps to answer this question. Quote the exact words in double quotes. \
If the text holds nothing that helps, reply only {nothing}.

Question: {question}"""
COMBINE = """{text}

Above are findings from the pieces of one long text. Answer the question from them alone. Keep the quotes exactly as \
they are, in double quotes; where findings contradict each other, say so.

Question: {question}"""

CONDENSE = """{text}

Above are findings from the pieces of one long text. Repeat in at most {chars} characters what in them helps to answer \
the question. Keep the most important quotes exactly as they are, in double quotes.

Question: {question}"""
SIDE_BY_SIDE = "(The findings could not be combined any further; they follow as they are.)"
#: A round of combining after which more than this share of the text is left is not worth another.
_WORTH_IT = 0.9

Ask = Callable[[list[str]], Sequence[Any]]
Chunks = Callable[[Any, int], Iterable[str]]


def answer_by_map(question: str, documents: Sequence[str], piece_chars: int, chunks: Chunks, ask: Ask) -> str:
    """The answer: findings of all pieces, combined until they fit one prompt.

    Args:
        question: What is asked.
        documents: All texts.
        piece_chars: How much text one prompt may hold.
        chunks: Cuts documents into pieces of at most that size.
        ask: Asks many prompts at once; a failed reply is falsy.
    """
    texts = texts_of(documents, piece_chars, chunks)
    replies = ask([PIECE.format(text=text, nothing=NOTHING, question=question) for text in texts])
    findings = [str(reply).strip() for reply in replies if reply and not says_nothing(str(reply))]
    failed = sum(1 for reply in replies if not reply)
    if failed == len(texts):
        raise RuntimeError(f"none of the {len(texts)} pieces could be read: {replies[0]!r}" if texts else "no text")
    if not findings:
        missing = f" {failed} could not be read." if failed else ""
        return f"The text does not answer the question: nothing was found in its {len(texts)} pieces.{missing}"
    worth_it = True
    while len(findings) > 1:
        way = combined if worth_it else condensed
        fewer = way(question, whole_parts(findings, piece_chars, chunks), piece_chars, ask)
        if not fewer:
            break
        if len(fewer) > 1 and sum(map(len, fewer)) > _WORTH_IT * sum(map(len, findings)):
            if not worth_it:
                break
            worth_it = False  # no two fit together, or replies are as long as what they were made of
            continue
        findings, worth_it = fewer, True
    return findings[0] if len(findings) == 1 else "\n\n".join([SIDE_BY_SIDE, *findings])


def combined(question: str, findings: list[str], piece_chars: int, ask: Ask) -> list[str]:
    """Fewer findings: as many together as one prompt holds. Where combining fails they stand side by side; where all
    of it fails, there are none."""
    groups = grouped(findings, piece_chars)
    several = {index: joined(group) for index, group in enumerate(groups) if len(group) > 1}
    replies = ask([COMBINE.format(text=text, question=question) for text in several.values()]) if several else []
    if several and not any(replies):
        return []
    told = {index: str(reply).strip() for index, reply in zip(several, replies, strict=True) if reply}
    return [told.get(index) or joined(group) for index, group in enumerate(groups)]


def condensed(question: str, findings: list[str], piece_chars: int, ask: Ask) -> list[str]:
    """The same findings, those that leave no room for another each told shorter."""
    most = piece_chars // 4
    long = {index: finding for index, finding in enumerate(findings) if len(finding) > most}
    replies = ask([CONDENSE.format(text=text, question=question, chars=most) for text in long.values()]) if long else []
    told = {index: str(reply).strip() for index, reply in zip(long, replies, strict=True) if reply}
    return [told.get(index) or finding for index, finding in enumerate(findings)]


def whole_parts(findings: Sequence[str], piece_chars: int, chunks: Chunks) -> list[str]:
    """The findings; one that is longer than a prompt may hold in parts, so that nothing of it is cut."""
    parts: list[str] = []
    for finding in findings:
        parts.extend(map(str, chunks([finding], piece_chars)) if len(finding) > piece_chars else [finding])
    return parts


def texts_of(documents: Sequence[str], piece_chars: int, chunks: Chunks) -> list[str]:
    """What is asked about: documents that fit a prompt, several in one; the others in pieces, each by itself, so that
    an edit does not change which pieces share a prompt."""
    whole: list[str] = []
    parts: list[str] = []
    for document in documents:
        pieces = list(chunks([document], piece_chars))
        (whole if len(pieces) == 1 else parts).extend(pieces)
    return [*packed(whole, piece_chars), *parts]


def packed(pieces: Sequence[str], size: int) -> list[str]:
    """Neighbours joined as long as they fit, so that a thousand small files are not a thousand prompts."""
    return [joined(group) for group in grouped(pieces, size)]


def joined(group: Sequence[str]) -> str:
    # A piece alone is handed on as it is: it knows its place, which a copy would not.
    return group[0] if len(group) == 1 else "\n\n".join(group)


def grouped(pieces: Sequence[str], size: int) -> list[Sequence[str]]:
    """Neighbours that fit into ``size`` characters together, none of which may be longer.

    As ``chunks`` cuts a text: a border's rank is a checksum of the piece behind it, and borders are taken by rank
    where what lies around them is too long. So a change of one piece changes the group around it; filled from the
    left, groups fall out of step, and a line in one of many files could change the prompts of all files behind it.
    """
    ends = [0, *accumulate(len(piece) + 2 for piece in pieces)]
    ranked = sorted((crc32(piece.encode("utf-8", "surrogatepass")), at) for at, piece in enumerate(pieces) if at)
    borders = [0, len(pieces)] if pieces else [0]
    for least in (size // 4, 0):
        for index, (rank, at) in enumerate(ranked):
            where = bisect_left(borders, at)
            before, after = borders[where - 1], borders[where]
            if at == after or ends[after] - ends[before] - 2 <= size:
                continue
            if min(ends[at] - ends[before], ends[after] - ends[at]) < least:
                continue
            if index + 1 < len(ranked) and ranked[index + 1][0] == rank:  # of equal ones the farthest that still fits
                following = ranked[index + 1][1]
                if following < after and ends[following] - ends[before] - 2 <= size:
                    continue
            insort(borders, at)
    return [pieces[start:end] for start, end in pairwise(borders)]


def says_nothing(reply: str) -> bool:
    """Whether a reply says that its piece holds nothing of use."""
    return reply.strip().strip("\"'`*.").upper() == NOTHING
