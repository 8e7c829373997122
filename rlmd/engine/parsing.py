"""Reads a root's reply: thinking, cells, a final in prose. Pure functions of text; knows no run and no REPL.

Models write both finish protocols, in every form that their training left them: ``FINAL(42)``, ``**FINAL(42)**``,
``- FINAL_VAR("x")``, ``Final Answer: 42``, a fence never closed, a fence inside a string, box tokens around it all.
Finals are the subject of ``finals.py``; here the reply is taken apart. Every rule has a row in
tests/unit/test_engine_parsing.py.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass

from rlmd.engine.finals import ProseFinal, prose_finals

_CODE_LANGUAGES = frozenset({"repl", "python", "py", "python3", "py3"})
_THINKING = re.compile(r"<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_ORPHAN_THINKING_END = re.compile(r"^(.*?)</(?:think|thinking|thought|reasoning)>", re.IGNORECASE | re.DOTALL)
#: Box tokens of GLM and end tokens that some servers leave in the text.
_STRAY_TOKENS = re.compile(r"<\|(?:begin_of_box|end_of_box|im_end|eot_id|endoftext|end_of_text)\|>")
_OPENING = re.compile(r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^\n]*)$")
#: A fence that opens behind words on its line; its language says that it is one.
_LATE_OPENING = re.compile(r"(?P<indent>)(?P<fence>`{3,})[ \t]*(?P<info>repl|python3?|py3?)[ \t]*$", re.IGNORECASE)
#: What a scan of Python source must step over so that a backtick found is really outside of strings and comments.
_LEXEME = re.compile(
    r"""(?P<triple>'{3}|"{3})|#[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|(?P<fence>`{3,}|^[ \t]*~{3,})""",
    re.MULTILINE,
)
_LOOKS_LIKE_CODE = re.compile(
    r"^[ \t]*(?:import |from \S+ import |def |for |while |if |with |print\("
    r"|[A-Za-z_]\w*(?:\[[^\]]*\])?[ \t]*[-+*/|]?=[^=])",
    re.MULTILINE,
)
#: A reply without a fence is tried as code only up to here: a reply is some 4,000 characters, an essay is not code.
_BARE_CODE_CHARS = 8000


@dataclass(frozen=True, slots=True)
class Cell:
    source: str
    #: Whether its fence was closed; the last one of a reply, or one without a fence, may have been cut.
    closed: bool = True
    #: Where its block ends in the reply's text: what follows was written before its output was read.
    end: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """``text`` is the reply without thinking and stray tokens; ``prose`` is ``text`` without fenced blocks."""

    text: str
    thinking: str
    cells: tuple[Cell, ...]
    prose: str
    finals: tuple[ProseFinal, ...]


def read_reply(reply: str) -> Reply:
    """Takes a root's reply apart. Never raises."""
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    text, thinking = strip_thinking(text)
    text = _STRAY_TOKENS.sub("", text).strip("\n")
    cells, prose = _split(text)
    finals = tuple(prose_finals(prose))
    if not cells and not finals and _is_bare_code(text):
        cells, prose = (Cell(text, closed=False, end=len(text)),), ""
    return Reply(text=text, thinking=thinking, cells=cells, prose=prose, finals=finals)


# ── thinking ────────────────────────────────────────────────────────────────────────────────────────────────


def strip_thinking(text: str) -> tuple[str, str]:
    """Splits off thinking: ``(text without it, the thinking)``.

    Tags inside a fence are code's own. A block never closed is thinking to the end (the reply was cut inside it);
    an end tag without a start is closed by a chat template that opened it in the prompt.
    """
    thinking: list[str] = []
    orphan = _ORPHAN_THINKING_END.match(text)
    if orphan and not _THINKING.search(orphan[1]):
        thinking.append(orphan[1])
        text = text[orphan.end() :]
    kept: list[str] = []
    position = 0
    while (opening := _opening_outside_fences(text, position)) is not None:
        kept.append(text[position : opening.start()])
        closing = re.compile(rf"</{opening[1]}>", re.IGNORECASE).search(text, opening.end())
        thinking.append(text[opening.end() : closing.start() if closing else len(text)])
        position = closing.end() if closing else len(text)
    kept.append(text[position:])
    return "".join(kept), "\n".join(part.strip() for part in thinking if part.strip())


def _opening_outside_fences(text: str, position: int) -> re.Match[str] | None:
    for opening in _THINKING.finditer(text, position):
        if not _inside_fence(text[position : opening.start()]):
            return opening
    return None


def _inside_fence(text: str) -> bool:
    fence = ""
    for line in text.split("\n"):
        if not fence:
            found = _opening(line)
            fence = found["fence"] if found else ""
        elif _closes(line, fence):
            fence = ""
    return bool(fence)


# ── fences ──────────────────────────────────────────────────────────────────────────────────────────────────


def _split(text: str) -> tuple[tuple[Cell, ...], str]:
    """Cells in order, and the prose between fenced blocks."""
    cells: list[Cell] = []
    prose: list[str] = []
    position = 0
    while position < len(text):
        end_of_line = text.find("\n", position)
        end_of_line = len(text) if end_of_line < 0 else end_of_line
        line = text[position:end_of_line]
        opening = _opening(line)
        if opening is None:
            prose.append(line)
            position = end_of_line + 1
            continue
        prose.append(line[: opening.start()])
        start = min(end_of_line + 1, len(text))
        language = _language(opening["info"])
        is_code = language in _CODE_LANGUAGES or not language
        end, position = _closing(text, start, opening["fence"], is_code)
        source = _dedent(text[start:end], opening["indent"])
        runs = language in _CODE_LANGUAGES or (not language and _reads_as_code(source))
        if runs and source.strip():
            cells.append(Cell(source, closed=end < len(text), end=position))
    return tuple(cells), "\n".join(prose)


def _opening(line: str) -> re.Match[str] | None:
    """The fence that a line opens, if it opens one."""
    opening = _OPENING.match(line)
    if opening is not None:
        return opening if "`" not in opening["info"] else None
    return _LATE_OPENING.search(line)


def _language(info: str) -> str:
    words = info.strip().strip("{}").replace(",", " ").split()
    return words[0].lower().lstrip(".") if words else ""


def _closes(line: str, fence: str) -> bool:
    stripped = line.strip()
    return len(stripped) >= len(fence) and not stripped.strip(fence[0])


def _closing(text: str, start: int, fence: str, is_code: bool) -> tuple[int, int]:
    """Where the block's content ends, and where to read on.

    In Python a run of backticks occurs only inside a string or a comment, so the closing fence is the first run
    outside of both, at the end of a line of code too. A string never closed means broken code: then the first line
    that looks like a closing fence is taken.
    """
    if is_code and fence[0] == "`":
        found = _first_fence_outside_strings(text, start, len(fence))
        if found is not None:
            end_of_line = text.find("\n", found)
            end_of_line = len(text) if end_of_line < 0 else end_of_line
            rest = text[found:end_of_line].lstrip("`").strip()
            at_line_start = not text[text.rfind("\n", 0, found) + 1 : found].strip()
            # A fence with a language opens the next block: this one was never closed.
            resume = text.rfind("\n", 0, found) + 1 if at_line_start and rest else end_of_line + 1
            return found, max(resume, start)
    position = start
    while position < len(text):
        end_of_line = text.find("\n", position)
        end_of_line = len(text) if end_of_line < 0 else end_of_line
        if _closes(text[position:end_of_line], fence):
            return position, end_of_line + 1
        position = end_of_line + 1
    return len(text), len(text)


def _first_fence_outside_strings(text: str, start: int, length: int) -> int | None:
    position = start
    while (lexeme := _LEXEME.search(text, position)) is not None:
        if lexeme["triple"]:
            end = _end_of_triple(text, lexeme.end(), lexeme["triple"])
            if end is None:
                return None
            position = end
        elif lexeme["fence"] and lexeme["fence"][0] == "`" and len(lexeme["fence"]) >= length:
            return lexeme.start()
        else:
            position = lexeme.end()
    return None


def _end_of_triple(text: str, position: int, quote: str) -> int | None:
    while (end := text.find(quote, position)) >= 0:
        backslashes = len(text[position:end]) - len(text[position:end].rstrip("\\"))
        if backslashes % 2 == 0:
            return end + 3
        position = end + 1
    return None


def _dedent(source: str, indent: str) -> str:
    if indent:
        lines = source.split("\n")
        source = "\n".join(line[len(indent) :] if line.startswith(indent) else line.lstrip() for line in lines)
    first = next((line for line in source.split("\n") if line.strip()), "")
    if first[:1] in (" ", "\t"):
        source = textwrap.dedent(source)
    return source.rstrip() + "\n" if source.strip() else ""


def _reads_as_code(source: str) -> bool:
    """Whether a block without a language is meant to run: quoted output and plain text are not."""
    tree = _parse(source)
    if tree is None:
        return bool(_LOOKS_LIKE_CODE.search(source))
    return any(not _is_trivial(node) for node in tree.body)


def _is_bare_code(text: str) -> bool:
    """Whether a reply without any fence is nothing but code; prose hardly ever parses as Python."""
    if len(text) > _BARE_CODE_CHARS or not text.strip():
        return False
    tree = _parse(text)
    return tree is not None and any(not _is_trivial(node) for node in tree.body)


def _is_trivial(node: ast.stmt) -> bool:
    """A statement that only mentions a value, as words, numbers and JSON in a fence do."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None  # "Note: something" parses as an annotation
    if not isinstance(node, ast.Expr):
        return False
    return not any(isinstance(part, ast.Call | ast.Await) for part in ast.walk(node))


def _parse(source: str) -> ast.Module | None:
    if len(source) > _BARE_CODE_CHARS:
        return None
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
