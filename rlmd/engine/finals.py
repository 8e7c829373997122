"""Finals that a root writes as prose: finding them, and deciding whether one counts.

Pure functions of text. ``prose_finals`` finds ``FINAL(...)``, ``FINAL_VAR(...)``, ``SUBMIT(...)`` and labels such as
``Final Answer: ...``; ``judge`` decides, given what is known after the reply's cells have run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

FinalKind = Literal["literal", "name", "expression"]
FinalCallable = Literal["FINAL", "FINAL_VAR", "SUBMIT"]

#: Scaffold names are tools and inputs, never an answer; ``answer`` is not among them: it means its content.
SCAFFOLD = frozenset(
    {
        "context",
        "contexts",
        "documents",
        "search",
        "grep",
        "chunks",
        "llm_query",
        "llm_query_batched",
        "rlm_query",
        "rlm_query_batched",
        "ok",
        "history",
        "FINAL",
        "FINAL_VAR",
        "SUBMIT",
        "SHOW_VARS",
        "SubQueryError",
        "Document",
        "Piece",
    }
)
#: Callables that look at nothing.
_FINISHING = frozenset({"FINAL", "FINAL_VAR", "SUBMIT", "print", "SHOW_VARS", "str", "answer"})
#: Copied out of a prompt or an example, not meant as an answer.
_PLACEHOLDERS = frozenset({"...", "…", "your answer", "your final answer", "your answer here", "final answer"})
_FINAL_CALL = re.compile(r"^[ \t>*_`#\-]*(?:\d+\.[ \t]*)?(FINAL_VAR|FINAL|SUBMIT)[ \t]*\(", re.MULTILINE)
_FINAL_LABEL = re.compile(
    r"^[ \t>*_#\-]*(?:FINAL|final answer|final)[*_]*[ \t]*(?::|=>|->)[*_]*[ \t]*(?P<text>.+)",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
_LIST_MARKER = re.compile(r"^[ \t]*(?:\d{1,3}|[A-Za-z])$")
_LIST_MARKER_CHARS = 12
_DECORATION = re.compile(r"[\s*_`.;]*")
_EXPRESSION_CHARS = 500
#: Finals looked at in one reply: two that differ are refused anyway, and each may cost a scan of the rest.
_MOST_FINALS = 8


@dataclass(frozen=True, slots=True)
class ProseFinal:
    """A final written as prose. ``text`` is the literal, the name, or the expression's source."""

    via: FinalCallable
    kind: FinalKind
    text: str
    #: Names that an expression reads; it is one only if one of them is a variable.
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Accepted:
    """``literal`` holds the answer; else ``name`` is the variable whose value is it (``answer``: its content);
    else ``expression`` is the source to evaluate as a cell."""

    via: FinalCallable
    literal: str | None = None
    name: str | None = None
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """``why`` is told to the model and recorded."""

    why: str


def judge(
    finals: Sequence[ProseFinal],
    *,
    ran_cells: bool,
    cell_failed: bool,
    anything_executed: bool,
    variables: Collection[str],
) -> Accepted | Refused | None:
    """Decides whether the reply's prose final counts.

    Args:
        finals: Those of one reply.
        ran_cells: Whether cells of this very reply ran, so that the final was written before their output was read.
        cell_failed: Whether one of them raised.
        anything_executed: Whether any cell has run since the run began, this reply's included.
        variables: The user's variables as they stand now.

    Returns:
        None when the reply holds no final.
    """
    if not finals:
        return None
    distinct = tuple(dict.fromkeys(finals))
    if len(distinct) > 1:
        return Refused(f"The reply holds {len(distinct)} different finals; give one.")
    final = distinct[0]
    if not final.text.strip():
        return Refused(f"{final.via}() is empty; put the answer in it, or the name of the variable that holds it.")
    if not anything_executed:
        return Refused("Nothing has been read yet: run a cell that looks at the context before you finish.")
    if ran_cells and cell_failed:
        return Refused("A cell of this reply failed, so its final is not accepted; mend the cell first.")
    known = set(variables) | {"answer"}
    if final.kind == "name":
        return _judge_name(final, known, ran_cells)
    if final.kind == "expression" and (final.via == "FINAL_VAR" or final.names & known):
        return Accepted(final.via, expression=final.text)
    if final.via == "FINAL_VAR":
        return Refused("FINAL_VAR takes the name of a variable; assign the answer to one, or use FINAL(text).")
    return _judge_literal(final, ran_cells)


def _judge_name(final: ProseFinal, known: set[str], ran_cells: bool) -> Accepted | Refused:
    name = final.text
    if name in SCAFFOLD:
        return Refused(f"{name} belongs to the REPL and is no answer; assign the answer to a variable of your own.")
    if name in known:
        return Accepted(final.via, name=name)
    if final.via == "FINAL_VAR":
        have = ", ".join(sorted(known - {"answer"})[:20]) or "none"
        return Refused(f"There is no variable {name}. Variables: {have}.")
    return _judge_literal(final, ran_cells)


def _judge_literal(final: ProseFinal, ran_cells: bool) -> Accepted | Refused:
    if ran_cells:
        return Refused(
            "The final was written before the output of this reply's code was read. Read the output, then finish; "
            "or name a variable that holds the answer."
        )
    if final.text.strip().lower() in _PLACEHOLDERS:
        return Refused(f"{final.text.strip()!r} is a placeholder, not an answer.")
    return Accepted(final.via, literal=final.text)


# ── finals in code ──────────────────────────────────────────────────────────────────────────────────────────


def unread(sources: Sequence[str], *, anything_executed: bool) -> str | None:
    """Why a final that a reply's cells handed over rests on nothing that was read; None when it may count.

    Args:
        sources: The reply's cells, the one that finished last.
        anything_executed: Whether cells of earlier replies have run.
    """
    trees = [tree for tree in map(_parse_cell, sources) if tree is not None]
    if not trees or len(trees) < len(sources):
        return None
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    reads = any(_reads(node, own) for node in nodes)
    if not reads and not anything_executed:
        return "Nothing has been read yet: run a cell that looks at the context before you finish."
    if reads and any(_hands_over_a_literal(node) for node in trees[-1].body):
        return (
            "The final is a text written before the output of this reply's code was read. Read the output, then "
            "finish; or hand over a variable that the code computed."
        )
    return None


def _parse_cell(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _reads(node: ast.AST, own: Collection[str]) -> bool:
    """Whether code looks at anything: a name that it did not make itself, or a call other than finishing."""
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in _FINISHING)
    return isinstance(node, ast.Name) and node.id not in own and node.id not in _FINISHING


def _hands_over_a_literal(node: ast.stmt) -> bool:
    """``FINAL("...")`` or ``answer["content"] = "..."``, not under any condition."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id="FINAL" | "SUBMIT"), args=[argument])):
            return _is_literal(argument)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="answer"), slice=ast.Constant(value="content"))]):
            return _is_literal(node.value)
    return False


def _is_literal(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name | ast.Call | ast.FormattedValue | ast.Await) for part in ast.walk(node))


# ── finals in prose ─────────────────────────────────────────────────────────────────────────────────────────


def prose_finals(prose: str) -> Iterator[ProseFinal]:
    """Finals in order of appearance."""
    position = 0
    found = False
    for _ in range(_MOST_FINALS):
        call = _FINAL_CALL.search(prose, position)
        if call is None:
            break
        end = _end_of_argument(prose, call.end())
        position = call.end()
        if end is not None:
            found = True
            position = end + 1
            via: FinalCallable = call[1]  # type: ignore[assignment]  # the pattern has these three alone
            yield _final(via, prose[call.end() : end])
    if not found and (label := _FINAL_LABEL.search(prose)) is not None:
        text = label["text"].strip().strip("*").strip()
        if not _FINAL_CALL.match(text):
            yield ProseFinal("FINAL", "literal", text)


def _end_of_argument(prose: str, start: int) -> int | None:
    """Index of the parenthesis that closes a call whose argument begins at ``start``; None if there is none."""
    quoted = _end_of_quoted_argument(prose, start)
    if quoted is not None:
        return quoted
    depth = 1
    for position in range(start, len(prose)):
        char = prose[position]
        if char == "(":
            depth += 1
        elif char == ")":
            if _opens_list_item(prose, start, position):
                continue
            depth -= 1
            if depth == 0:
                return _end_of_unbalanced_line(prose, position)
    return None


def _opens_list_item(prose: str, start: int, position: int) -> bool:
    """Whether the parenthesis ends a marker such as ``1)`` on a later line of the argument."""
    line_break = prose.rfind("\n", max(start, position - _LIST_MARKER_CHARS), position)
    return line_break >= 0 and _LIST_MARKER.match(prose[line_break + 1 : position]) is not None


def _end_of_quoted_argument(prose: str, start: int) -> int | None:
    """A quoted argument ends at its own quote followed by the parenthesis, whatever stands between."""
    opening = re.compile(r"\s*(?:'{3}|\"{3}|['\"“`])").match(prose, start)
    if opening is None:
        return None
    quote = {"“": "”"}.get(opening[0].strip(), opening[0].strip())
    closing = re.compile(re.escape(quote) + r"\s*,?\s*\)").search(prose, opening.end())
    while closing is not None and prose[closing.start() - 1] == "\\":
        closing = re.compile(re.escape(quote) + r"\s*,?\s*\)").search(prose, closing.start() + 1)
    return closing.end() - 1 if closing is not None else None


def _end_of_unbalanced_line(prose: str, end: int) -> int:
    """``FINAL(see a) and b)``: a later unmatched parenthesis that ends the line closes the call instead."""
    depth = 0
    for position in range(end + 1, len(prose)):
        char = prose[position]
        if char == "\n":
            break
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            line_end = prose.find("\n", position)
            rest = prose[position + 1 : line_end if line_end >= 0 else len(prose)]
            if depth < 0 and _DECORATION.fullmatch(rest):
                return position
    return end


def _final(via: FinalCallable, argument: str) -> ProseFinal:
    argument = argument.strip()
    if argument[:1] == "`" and argument[-1:] == "`" and len(argument) > 1:
        argument = argument.strip("`").strip()
    if argument[:1] == "“" and argument[-1:] == "”":
        argument = argument[1:-1]
        return _named_if_variable(via, argument)
    tree = _parse_expression(argument)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        return _named_if_variable(via, tree.value)
    if isinstance(tree, ast.Name):
        return ProseFinal(via, "name", tree.id)
    if isinstance(tree, ast.Call | ast.Subscript | ast.Attribute | ast.JoinedStr | ast.BinOp):
        names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        return ProseFinal(via, "expression", argument, names)
    return ProseFinal(via, "literal", argument)


def _named_if_variable(via: FinalCallable, text: str) -> ProseFinal:
    """``FINAL_VAR("x")`` names x; ``FINAL("x")`` is the text x."""
    if via == "FINAL_VAR" and text.strip().isidentifier():
        return ProseFinal(via, "name", text.strip())
    return ProseFinal(via, "literal", text)


def _parse_expression(source: str) -> ast.expr | None:
    if len(source) > _EXPRESSION_CHARS and not source.startswith(("'", '"')):
        return None
    if len(source) > 64 * _EXPRESSION_CHARS:
        return None
    try:
        return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
