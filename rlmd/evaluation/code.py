"""CodeQA-like: multiple choice over a tree of Python source, a made one or a real one such as the standard library.

As in LongBench-v2's code questions there are four choices and one letter is right. The questions ask what the source
alone decides, so that their truth is computed from it: where a name is defined, what a function calls, what a default
is, how many methods a class has.
"""

from __future__ import annotations

import ast
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from rlmd.errors import SourceMissing
from rlmd.evaluation.item import CHARS_PER_TOKEN, Item, Task, words
from rlmd.evaluation.scoring import choice_in

LETTERS = "ABCD"
FORM = (
    "{question}\n{choices}\nEnd your answer with: The correct answer is (X), where X is the letter of the right choice."
)
_DEFINED = re.compile(r"^(?:async )?(?:def|class) (\w+)", re.MULTILINE)
#: Files of a big tree whose functions are looked into: what is asked of ten questions need not parse 40 MB.
_PARSED_FILES = 120
_VERBS = words("load save merge split parse write check find count trim pack sort read join scan fetch route seal")
_NOUNS = words("index buffer record ledger packet token window cursor batch region header journal cache frame")


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with its right answer, three wrong ones, and the file and line of source that decide it."""

    question: str
    right: str
    wrong: tuple[str, ...]
    file: str
    evidence: str


# ── trees ───────────────────────────────────────────────────────────────────────────────────────────────────────


def made_tree(chars: int, rng: random.Random) -> dict[str, str]:
    """Modules of about so many characters in all, each function and class with a name of its own."""
    tree: dict[str, str] = {}
    names = _names(rng)
    left, number = chars, 0
    known: list[str] = []
    while left > 0:
        module = f"src/{rng.choice(_NOUNS)}s/{rng.choice(_VERBS)}_{number:04}.py"
        text = _module(names, known, rng)
        tree[module] = text
        left -= len(text)
        number += 1
    return tree


def _names(rng: random.Random) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}_{number}"


def _module(names: Iterator[str], known: list[str], rng: random.Random) -> str:
    parts = [f'"""Part of the {rng.choice(_NOUNS)} subsystem."""\n\nfrom __future__ import annotations\n']
    for _ in range(rng.randrange(6, 16)):
        if rng.random() < 0.3:
            parts.append(_class(next(names), rng))
        else:
            name = next(names)
            parts.append(_function(name, rng.sample(known, min(len(known), rng.randrange(1, 4))), rng))
            known.append(name)
    return "\n\n".join(parts)


def _class(name: str, rng: random.Random) -> str:
    title = "".join(part.title() for part in name.split("_"))
    methods = rng.sample([f"{verb}_{noun}" for verb in _VERBS for noun in _NOUNS], rng.randrange(2, 9))
    bodies = "\n".join(f"    def {method}(self) -> int:\n        return {rng.randrange(1000)}\n" for method in methods)
    return f'class {title}:\n    """Keeps the {rng.choice(_NOUNS)} of a {rng.choice(_NOUNS)}."""\n\n{bodies}'


def _function(name: str, calls: list[str], rng: random.Random) -> str:
    default = rng.randrange(2, 10_000)
    steps = "\n".join(f"    total += {call}(value)" for call in calls)
    return (
        f"def {name}(value: int, limit: int = {default}) -> int:\n"
        f'    """Gives the {rng.choice(_NOUNS)} of a value, at most ``limit``."""\n'
        f"    total = value % {rng.randrange(3, 99)}\n{steps}\n    return min(total, limit)\n"
    )


def read_tree(folder: Path) -> dict[str, str]:
    """The Python files below a folder. Raises ``SourceMissing`` where there are none."""
    tree = {}
    for file in sorted(folder.rglob("*.py")):
        if file.is_file():
            tree[file.relative_to(folder).as_posix()] = file.read_text(encoding="utf-8", errors="replace")
    if not tree:
        raise SourceMissing(f"There are no Python files in {str(folder)!a}.", hint="Name a folder of Python source.")
    return tree


def cut_tree(tree: Mapping[str, str], chars: int) -> dict[str, str]:
    """Files in order, as many as make the size; at least one."""
    kept: dict[str, str] = {}
    size = 0
    for name, text in tree.items():
        if kept and size + len(text) > chars:
            break
        kept[name] = text
        size += len(text)
    return kept


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────


def questions_of(tree: Mapping[str, str], rng: random.Random) -> Iterator[Choice]:
    """Questions without end, or none where the tree gives too little to ask."""
    places: dict[str, list[str]] = defaultdict(list)
    for file, text in tree.items():
        for name in _DEFINED.findall(text):
            places[name].append(file)
    unique = {name: files[0] for name, files in places.items() if len(files) == 1 and not name.startswith("_")}
    parsed = {
        file: nodes for file in rng.sample(sorted(tree), min(_PARSED_FILES, len(tree))) if (nodes := _nodes(tree[file]))
    }
    makers: tuple[Callable[[], Choice | None], ...] = (
        lambda: _where(unique, tree, rng),
        lambda: _default(parsed, unique, rng),
        lambda: _calls(parsed, unique, rng),
        lambda: _methods(parsed, unique, rng),
    )
    misses = 0
    while misses < 400:
        for make in makers:
            found = make()
            misses = 0 if found else misses + 1
            if found:
                yield found


def _nodes(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError):
        return []


def _where(unique: Mapping[str, str], tree: Mapping[str, str], rng: random.Random) -> Choice | None:
    others = [file for file in tree if tree[file]]
    if not unique or len(others) < 4:
        return None
    name = rng.choice(sorted(unique))
    wrong = rng.sample([file for file in others if file != unique[name]], 3)
    return Choice(f"In which file is {name} defined?", unique[name], tuple(wrong), unique[name], name)


def _functions(parsed: Mapping[str, list[ast.stmt]], unique: Mapping[str, str]) -> list[tuple[str, ast.FunctionDef]]:
    return [
        (file, node)
        for file, nodes in parsed.items()
        for node in nodes
        if isinstance(node, ast.FunctionDef) and unique.get(node.name) == file
    ]


def _default(parsed: Mapping[str, list[ast.stmt]], unique: Mapping[str, str], rng: random.Random) -> Choice | None:
    found = [
        (file, node, argument.arg, default.value)
        for file, node in _functions(parsed, unique)
        for argument, default in zip(node.args.args[-len(node.args.defaults) :], node.args.defaults, strict=False)
        if isinstance(default, ast.Constant) and type(default.value) is int and default.value > 1
    ]
    if not found:
        return None
    file, node, argument, value = rng.choice(found)
    wrong = {str(value + delta) for delta in (1, -1, 10, 100, 7)} - {str(value)}
    question = f"What is the default of the parameter {argument} of the function {node.name}?"
    return Choice(question, str(value), tuple(rng.sample(sorted(wrong), 3)), file, node.name)


def _calls(parsed: Mapping[str, list[ast.stmt]], unique: Mapping[str, str], rng: random.Random) -> Choice | None:
    names = sorted(unique)
    for file, node in rng.sample(known := _functions(parsed, unique), min(5, len(known))):
        called = {
            call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        }
        right = sorted(called & set(unique))
        # A name that occurs in the body at all might be taken for a call.
        mentioned = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        wrong = [name for name in names if name not in mentioned and name != node.name]
        if right and len(wrong) >= 3:
            question = f"Which of these does the function {node.name} call?"
            return Choice(question, rng.choice(right), tuple(rng.sample(wrong, 3)), file, node.name)
    return None


def _methods(parsed: Mapping[str, list[ast.stmt]], unique: Mapping[str, str], rng: random.Random) -> Choice | None:
    classes = [
        (file, node, sum(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in node.body))
        for file, nodes in parsed.items()
        for node in nodes
        if isinstance(node, ast.ClassDef) and unique.get(node.name) == file
    ]
    classes = [one for one in classes if one[2] > 1]
    if not classes:
        return None
    file, node, count = rng.choice(classes)
    wrong = [str(other) for other in range(max(1, count - 3), count + 4) if other != count]
    question = f"How many methods does the body of the class {node.name} define?"
    return Choice(question, str(count), tuple(rng.sample(wrong, 3)), file, node.name)


# ── items ───────────────────────────────────────────────────────────────────────────────────────────────────────


def items(tokens: int, count: int, seed: int, folder: Path | None = None) -> Iterator[Item]:
    """Questions over a tree: a made one, or the files of ``folder`` in order up to the length."""
    rng = random.Random(f"code {seed} {tokens}")  # noqa: S311  a seeded task, no secret
    chars = tokens * CHARS_PER_TOKEN
    tree = made_tree(chars, rng) if folder is None else cut_tree(read_tree(folder), chars)
    for number, choice in enumerate(islice(questions_of(tree, rng), count)):
        yield _item(choice, tree, tokens, number, rng)


def choice_question(question: str, choices: tuple[str, ...]) -> str:
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return FORM.format(question=question, choices=listed)


def choice_score(answer: str, letter: str) -> float:
    return float(choice_in(answer) == letter)


def _item(choice: Choice, tree: Mapping[str, str], tokens: int, number: int, rng: random.Random) -> Item:
    choices = [choice.right, *choice.wrong]
    rng.shuffle(choices)
    letter = LETTERS[choices.index(choice.right)]
    return Item(
        task="code",
        name=str(number),
        tokens=tokens,
        question=choice_question(choice.question, tuple(choices)),
        text=tree,
        truth=letter,
        score=partial(choice_score, letter=letter),
        basis=choice,
    )


def task_over(folder: Path | None) -> Task:
    """Args:
    folder: A real tree of Python source; None makes one.
    """
    return Task("code", "CodeQA-like: multiple choice over a tree of source", partial(items, folder=folder))
