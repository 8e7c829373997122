"""Evaluation without a daemon: scores by the published rules, truths counted by hand, the data sets' own files."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlmd.ctl.evaluating import print_verdicts
from rlmd.ctl.terminal import Output
from rlmd.errors import RlmdError
from rlmd.evaluation import code, hops, needles
from rlmd.evaluation.aggregation import ABBR, DESC, ENT, HUM, LABELS, LOC, NUM, Query, answer_of, pairs_of
from rlmd.evaluation.datasets import items_in
from rlmd.evaluation.item import CHARS_PER_TOKEN, Item, named_length
from rlmd.evaluation.lines import label_of, made_lines, rows_of
from rlmd.evaluation.oolong import items as oolong_items
from rlmd.evaluation.quick import Verdict, roles
from rlmd.evaluation.scoring import all_found, choice_in, exact_answer, f1, oolong_score, pairs_in
from rlmd.evaluation.tasks import tasks

ROWS = [
    ("2023-01-01", 1, NUM),
    ("2023-01-01", 1, NUM),
    ("2023-01-09", 2, LOC),
    ("2023-02-03", 2, HUM),
    ("2023-02-03", 3, ABBR),
    ("2023-02-03", 3, ENT),
    ("2023-03-20", 4, DESC),
    ("2023-03-21", 4, NUM),
]


@pytest.mark.parametrize(
    ("answer", "truth", "kind", "score"),
    [
        ("Label: entity", "entity", "label", 1),
        ("I counted. Label: **entity**", "entity", "label", 1),
        ("Label: Entity", "entity", "label", 0),
        ("entity", "entity", "label", 1),
        ("It is surely the entity", "entity", "label", 1),
        ("Answer: 7", "7", "number", 1),
        ("Answer: 9", "7", "number", 0.75**2),
        ("Answer: 352.", "352", "number", 0),
        ("Answer: [4]", "7", "number", 0.75**3),
        ("Answer: location is more common than entity", "more common than", "comparison", 1),
        ("Answer: location is less common than entity", "more common than", "comparison", 0),
        ("Answer: location is same frequency as entity", "same frequency as", "comparison", 1),
        ("Date: 03/07/2023", "03/07/2023", "date", 1),
        ("Date: 2023-03-07", "03/07/2023", "date", 1),
        ("Date: Mar 07, 2023", "03/07/2023", "date", 1),
        ("Date: 07/03/2023", "03/07/2023", "date", 0),
        ("", "7", "number", 0),
    ],
)
def test_oolong_is_scored_by_its_rule(answer: str, truth: str, kind: Any, score: float) -> None:
    assert oolong_score(answer, truth, kind) == pytest.approx(score)


def test_the_other_scores() -> None:
    assert all_found("it is 123 and ABC", ["123", "abc", "9"]) == pytest.approx(2 / 3)
    assert pairs_in("(3, 1)\n(1,3) and (2, 5)") == {(1, 3), (2, 5)}
    assert f1("(1, 2)\n(1, 3)", {(1, 2), (2, 3)}) == pytest.approx(0.5)
    assert (f1("none", set()), f1("none", {(1, 2)}), f1("(1, 2)", set())) == (1, 0, 0)
    chosen = ["The correct answer is (B).", "**The correct answer is C**", "D", "(A)", "B is right", "E"]
    assert [choice_in(one) for one in chosen] == ["B", "C", "D", "A", None, None]
    assert exact_answer("Because.\nExact Answer: Elm-ford  iv.\nMore.", "Elmford IV") == 0
    assert exact_answer("Because.\nExact Answer: **Elmford IV**", "elmford iv") == 1
    assert exact_answer("Elmford IV", "Elmford IV") == 1
    assert exact_answer("Exact Answer: Elmford IV or Foxham", "Elmford IV") == 0


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (Query("most"), NUM),
        (Query("least"), None),  # five labels come once
        (Query("most", users=(3,)), None),
        (Query("count", (NUM,)), "3"),
        (Query("count", (NUM,), since="2023-02-01"), "1"),
        (Query("count", (NUM,), until="2023-03-21"), "2"),
        (Query("count", (NUM,), users=(4,)), "1"),
        (Query("compare", (NUM, LOC)), "more common than"),
        (Query("compare", (LOC, NUM)), "less common than"),
        (Query("compare", (LOC, ENT)), "same frequency as"),
        (Query("user", (NUM,)), "1"),
        (Query("months_more", (NUM, LOC)), "2"),
        (Query("first_month", (NUM, LOC)), "2023-01"),
        (Query("first_month", (ENT, NUM)), "2023-02"),
        (Query("first_month", (ENT, ABBR)), None),
        (Query("top_date"), "2023-02-03"),
        (Query("dates_exactly", number=1), "3"),
    ],
)
def test_truths_of_oolong_counted_by_hand(query: Query, answer: str | None) -> None:
    assert answer_of(query, ROWS) == answer


@pytest.mark.parametrize(
    ("task", "pairs"),
    [
        (1, [(1, 2), (1, 4), (2, 4)]),
        (2, [(2, 3)]),
        (3, [(3, 4)]),
        (4, []),  # user 2 alone has one of the two
        (5, [(1, 3), (1, 4), (3, 4)]),
        (7, []),  # user 1's numbers are too early
        (11, []),  # nobody else has an entity
        (12, [(1, 2)]),
        (13, [(3, 4)]),
        (17, []),
        (18, []),
    ],
)
def test_truths_of_pairs_counted_by_hand(task: int, pairs: list[tuple[int, int]]) -> None:
    assert pairs_of(task, ROWS) == pairs


def test_every_line_has_the_label_that_it_was_made_with() -> None:
    lines = made_lines(20_000, random.Random(7))
    assert rows_of(lines.text, label_of) == lines.rows
    assert {label for _, _, label in lines.rows} == set(LABELS)
    assert label_of("What is love ?") is None


@pytest.mark.parametrize("name", sorted(tasks()))
def test_items_come_from_the_seed_and_are_as_long_as_was_asked(name: str) -> None:
    task = tasks()[name]
    once, again = (list(task.items(16_384, 4, 3)) for _ in range(2))
    other = list(task.items(16_384, 4, 4))
    assert [(item.question, item.text, item.truth) for item in once] == [
        (item.question, item.text, item.truth) for item in again
    ]
    assert [item.text for item in once] != [item.text for item in other]
    assert len(once) == 4
    assert len({item.name for item in once}) == 4
    for item in once:
        assert 0.8 < item.chars / (16_384 * CHARS_PER_TOKEN) < 1.25
        assert item.score("I do not know, sorry to say.") < 1


def test_what_decides_is_in_the_text() -> None:
    [needle] = needles.items(8192, 1, 0)
    assert isinstance(needle.text, str)
    assert needle.text.count(needle.truth) == 1
    for item in hops.items(8192, 6, 0):
        chain: Any = item.basis
        assert not isinstance(item.text, str)
        assert all(sum(hop.sentence in text for text in item.text.values()) == 1 for hop in chain)
        assert chain[0].about in item.question
        assert all(hop.about not in item.question for hop in chain[1:])


def test_questions_about_a_real_tree_are_true() -> None:
    """Over our own source: what is said to be defined in a file is there, and nowhere else."""
    folder = Path(code.__file__).parents[1]
    tree = code.read_tree(folder)
    asked = list(code.items(100_000, 40, 1, folder))
    assert len(asked) == 40
    for item in asked:
        choice: Any = item.basis
        assert f" {choice.evidence}" in tree[choice.file]
        assert len({choice.right, *choice.wrong}) == 4
        assert item.score(f"The correct answer is ({item.truth})") == 1
    with pytest.raises(RlmdError, match="no Python files"):
        code.read_tree(folder / "nothing")


def test_oolong_asks_only_what_has_one_answer() -> None:
    items = list(oolong_items(8192, 30, 2))
    assert len(items) == 30
    assert {item.name.split("-")[1] for item in items} >= {
        "most", "least", "compare", "count", "user", "months_more", "first_month", "dates_exactly",
    }  # fmt: skip


# ── the published files ─────────────────────────────────────────────────────────────────────────────────────────

RULER = {"index": 3, "input": "Noise.\nThe number is 77.\nWhat is the number?", "outputs": ["77"], "length": 9}
LINES = "Date: Jan 01, 2023 || User: 7 || Instance: Who ?\nDate: Jan 02, 2023 || User: 8 || Instance: Who else ?\n"
LABELLED = LINES.replace(" ?\n", " ? || Label: human being\n")
OOLONG = {
    "id": 1, "context_len": 1024, "dataset": "trec_coarse", "context_window_text": LINES, "question": "How many?",
    "answer": "[2]", "answer_type": "ANSWER_TYPE.NUMERIC", "context_window_text_with_labels": LABELLED,
}  # fmt: skip
LONGBENCH = {
    "_id": "x", "domain": "Code Repository Understanding", "question": "Which?", "choice_A": "a", "choice_B": "b",
    "choice_C": "c", "choice_D": "d", "answer": "C", "context": "def f(): ...",
}  # fmt: skip
BROWSECOMP = {
    "query_id": "1", "query": "Who?", "answer": "Ada", "gold_docs": [{"docid": "4", "text": "Ada did.", "url": "u"}],
    "negative_docs": [{"docid": "5", "text": "Bela did not."}],
}  # fmt: skip


def read(folder: Path, text: str, name: str = "data.jsonl") -> list[Item]:
    (folder / name).write_text(text)
    return list(items_in(folder, 100))


def test_published_files_are_read_as_they_are(tmp_path: Path) -> None:
    [needle] = read(tmp_path, json.dumps(RULER))
    assert (needle.task, needle.question, needle.score("It is 77.")) == ("niah", "What is the number?", 1)
    oolong, *pairs = read(tmp_path, json.dumps(OOLONG) + "\n\n" + json.dumps(OOLONG | {"id": 2}))[:21]
    assert (oolong.truth, oolong.tokens, oolong.score("Answer: 3")) == ("2", 1024, 0.75)
    assert [item.task for item in pairs] == ["pairs"] * 20
    assert pairs[1].score("(7, 8)") == 1, "both have a human being"
    assert pairs[0].score("nobody") == 1
    assert all("Label" not in str(item.text) for item in (oolong, *pairs)), "labels stay out of the text"
    [chosen] = read(tmp_path, json.dumps([LONGBENCH, LONGBENCH | {"domain": "Single-Document QA"}]))
    assert (chosen.task, chosen.score("The correct answer is (C)")) == ("code", 1)
    [chain] = read(tmp_path, json.dumps(BROWSECOMP))
    assert not isinstance(chain.text, str)
    assert (sorted(chain.text), chain.score("Exact Answer: Ada")) == (["4.txt", "5.txt"], 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"input": "x"', "no JSON"),
        ("[1]", "no JSON object"),
        ('{"what": 1}', "none of the data sets"),
        (json.dumps(OOLONG | {"question": None}), "question"),
        (json.dumps(BROWSECOMP | {"gold_docs": "U2FsdGVk"}), "gold_docs"),
    ],
)
def test_other_files_are_refused_with_the_place(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RlmdError, match=why) as refused:
        read(tmp_path, text)
    assert "data.jsonl" in refused.value.message
    assert refused.value.hint


def test_a_folder_without_files_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RlmdError, match="no \\.json") as refused:
        list(items_in(tmp_path, 1))
    assert "Parquet" in refused.value.hint


def test_lengths_have_names() -> None:
    assert [named_length(one) for one in (8192, 1 << 20, 10 << 20, 1000, 1234)] == ["8K", "1M", "10M", "1K", "1234"]


def test_verdicts_say_who_is_of_use_for_what_and_why_the_others_are_not() -> None:
    """The best first; what stands there can be put into the config as it is."""

    def verdict(name: str, useful: int | None, led: float, seconds: float, why: str = "") -> Verdict:
        leading = {"niah": led} if useful else {}
        return Verdict(
            model=f"box/{name}", window=8192, root=led >= 2, sub=useful is not None, useful_window=useful, reading={},
            leading=leading, seconds=seconds, why=why,
        )  # fmt: skip

    slow, best = verdict("slow", 2048, 2, 90.0), verdict("best", 4096, 3, 60.0)
    reads, talks = verdict("reads", 6963, 1, 5.0, "led 1 of 3"), verdict("talks", None, 0, 1.0, "told 0%")
    quick = verdict("quick", 1024, 2, 30.0)
    assert roles([slow, reads, best, quick, talks]) == {
        "root": ["box/best", "box/quick", "box/slow"],
        "sub": ["box/reads", "box/best", "box/slow", "box/quick"],
    }
    err = io.StringIO()
    print_verdicts(Output(io.StringIO(), err), [best, reads, talks])
    told = err.getvalue()
    assert "box/reads is no root: led 1 of 3." in told
    assert "box/talks is no sub: told 0%." in told
    assert '[roles] of the configuration: root = ["box/best"], sub = ["box/reads", "box/best"]' in told
    assert "None of these" not in told
    print_verdicts(Output(io.StringIO(), err), [reads])
    assert "None of these can be root" in err.getvalue()
