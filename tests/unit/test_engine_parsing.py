"""Every edge case of a root's reply, as a table: what runs, what is a final, what counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.engine.finals import Accepted, Refused, judge
from rlmd.engine.parsing import read_reply


def sources(reply: str) -> list[str]:
    return [cell.source.rstrip("\n") for cell in read_reply(reply).cells]


FENCES = {
    "one": ("```repl\nx = 1\n```", ["x = 1"]),
    "python tag": ("```python\nx = 1\n```", ["x = 1"]),
    "py tag": ("```py\nx = 1\n```", ["x = 1"]),
    "upper case": ("```REPL\nx = 1\n```", ["x = 1"]),
    "info string": ("```repl title=a\nx = 1\n```", ["x = 1"]),
    "braces": ("```{python}\nx = 1\n```", ["x = 1"]),
    "bare with code": ("```\nx = 1\nprint(x)\n```", ["x = 1\nprint(x)"]),
    "bare with text": ("```\nthe output was 42\n```", []),
    "bare with a number": ("```\n42\n```", []),
    "bare with broken code": ("```\nfor x in range(3)\n    print(x)\n```", ["for x in range(3)\n    print(x)"]),
    "json is no code": ('```json\n{"a": 1}\n```', []),
    "bash is no code": ("```bash\nls\n```", []),
    "two, in order": ("a\n```repl\nx = 1\n```\nb\n```repl\ny = 2\n```", ["x = 1", "y = 2"]),
    "unclosed": ("```repl\nx = 1\nprint(x)", ["x = 1\nprint(x)"]),
    "unclosed, then another": ("```repl\nx = 1\n```repl\ny = 2\n```", ["x = 1", "y = 2"]),
    "closed at the end of a line of code": ("```repl\nx=1```\nSo.\n```repl\ny=2\n```", ["x=1", "y=2"]),
    "indented": ("- do\n    ```repl\n    if x:\n        y\n    ```", ["if x:\n    y"]),
    "indented content alone": ("```repl\n  x = 1\n  y = 2\n```", ["x = 1\ny = 2"]),
    "CRLF": ("```repl\r\nx = 1\r\n```\r\n", ["x = 1"]),
    "four backticks around three": ("````repl\ns = 1\n```\nt = 2\n````", ["s = 1\n```\nt = 2"]),
    "longer closing": ("```repl\nx = 1\n`````\ntext", ["x = 1"]),
    "behind words": ("Let me look: ```repl\nx = 1\n```", ["x = 1"]),
    "inline code is no fence": ("Use ```x``` or ``` y ``` here.", []),
    "tildes": ("~~~repl\nx = 1\n~~~", ["x = 1"]),
    "fence in a triple-quoted string": (
        "```repl\ns = '''\n```\ninner\n```\n'''\nprint(s)\n```\ndone",
        ["s = '''\n```\ninner\n```\n'''\nprint(s)"],
    ),
    "fence in a string": ('```repl\ns = "```"\nprint(s)\n```', ['s = "```"\nprint(s)']),
    "fence in a comment": ("```repl\nx = 1  # not ``` here\ny = 2\n```", ["x = 1  # not ``` here\ny = 2"]),
    "string never closed": ("```repl\ns = '''abc\n```\nText.", ["s = '''abc"]),
    "apostrophe in broken code": ("```repl\nit's broken\n```\nText.", ["it's broken"]),
    "empty": ("```repl\n\n```", []),
    "thinking with a fence": ("<think>\n```repl\nno()\n```\n</think>\n```repl\nyes()\n```", ["yes()"]),
    "tag inside code": ('```repl\nx = "<think>"\n```\nmore', ['x = "<think>"']),
    "box tokens": ("<|begin_of_box|>```repl\nx = 1\n```<|end_of_box|>", ["x = 1"]),
    "no fence, only code": ("import re\nprint(len(context))", ["import re\nprint(len(context))"]),
    "no fence, prose": ("I will look at the context now.", []),
    "no fence, one word": ("Paris", []),
    "no fence, annotated prose": ("Note: nothing", []),
}


@pytest.mark.parametrize(("reply", "expected"), FENCES.values(), ids=FENCES.keys())
def test_cells(reply: str, expected: list[str]) -> None:
    """A reply's cells are found whatever its fences look like."""
    assert sources(reply) == expected


def test_a_cut_fence_says_so() -> None:
    """A cell whose fence was never closed is marked: a cut reply's last cell must not run."""
    assert [cell.closed for cell in read_reply("```repl\na()\n```\n```repl\nb(").cells] == [True, False]
    assert [cell.closed for cell in read_reply("```repl\na()\n```").cells] == [True]


THINKING = {
    "tag": ("<think>a</think>b", "b", "a"),
    "tag not closed": ("<think>a ```repl\nx\n```", "", "a ```repl\nx\n```"),
    "end tag alone": ("some thought\n</think>\nb", "b", "some thought"),
    "several": ("<think>a</think>b<thinking>c</thinking>d", "bd", "a\nc"),
    "none": ("b", "b", ""),
    "end tag in code": ('```repl\nx = "<think>a</think>"\n```', '```repl\nx = "<think>a</think>"\n```', ""),
}


@pytest.mark.parametrize(("reply", "text", "thinking"), THINKING.values(), ids=THINKING.keys())
def test_thinking_is_split_off(reply: str, text: str, thinking: str) -> None:
    """What a model thinks is neither code nor an answer."""
    parsed = read_reply(reply)
    assert (parsed.text.strip(), parsed.thinking) == (text, thinking)


#: reply → the answer's literal, or ("name", x), or ("expression", x), or None for no final, after a turn without cells.
FINALS = {
    "number": ("FINAL(42)", "42"),
    "leading spaces": ("   FINAL(42)", "42"),
    "after text": ("I know it.\nFINAL(42)", "42"),
    "mid-sentence": ("I could say FINAL(42) now.", None),
    "then prose with parentheses": ("FINAL(42)\n\nI verified it (twice)", "42"),
    "then prose on the line": ("FINAL(42) I verified it (twice)", "42"),
    "nested parentheses": ("FINAL(f(x) = (1, [2], {3: 4}))", "f(x) = (1, [2], {3: 4})"),
    "several lines": ("FINAL(one\ntwo\n\nthree)", "one\ntwo\n\nthree"),
    "list markers": ("FINAL(Two:\n1) first\n2) second\n)", "Two:\n1) first\n2) second"),
    "unmatched at the end of the line": ("FINAL(see a) and b)", "see a) and b"),
    "quoted": ('FINAL("it is (nearly) 4:) 2")', "it is (nearly) 4:) 2"),
    "triple-quoted": ("FINAL('''a\n(b\n''')", "a\n(b\n"),
    "escaped quote": (r'FINAL("say \"(x\") now")', 'say "(x") now'),
    "typographic quotes": ("FINAL(“it is (so”)", "it is (so"),
    "apostrophe": ("FINAL(It's (really) so)", "It's (really) so"),
    "unclosed": ("FINAL(42", None),
    "bold": ("**FINAL(42)**", "42"),
    "list item": ("- FINAL(42)", "42"),
    "quoted block": ("> FINAL(42)", "42"),
    "code span": ("`FINAL(42)`", "42"),
    "label": ("FINAL: 42", "42"),
    "label in words": ("Final Answer: 42", "42"),
    "bold label": ("**Final Answer:** 42", "42"),
    "arrow": ("FINAL => 42", "42"),
    "thinking aside": ("<think>FINAL(no)</think>FINAL(yes)", "yes"),
    "box tokens": ("<|begin_of_box|>FINAL(42)<|end_of_box|>", "42"),
    "same twice": ("FINAL(a)\nFINAL(a)", "a"),
    "SUBMIT": ("SUBMIT(42)", "42"),
    "a word that is no variable": ("FINAL(Paris)", "Paris"),
    "a dotted word": ("FINAL(rlmd.py)", "rlmd.py"),
    "variable": ("FINAL(result)", ("name", "result")),
    "answer dict": ("FINAL(answer)", ("name", "answer")),
    "variable by name": ("FINAL_VAR(result)", ("name", "result")),
    "variable quoted": ("FINAL_VAR('result')", ("name", "result")),
    "variable double-quoted": ('FINAL_VAR("result")', ("name", "result")),
    "variable in backticks": ("FINAL_VAR(`result`)", ("name", "result")),
    "variable, bold": ("**FINAL_VAR(result)**", ("name", "result")),
    "element": ("FINAL_VAR(result[0])", ("expression", "result[0]")),
    "call": ("FINAL_VAR(str(result))", ("expression", "str(result)")),
    "call in FINAL": ("FINAL(len(result))", ("expression", "len(result)")),
    "f-string": ('FINAL(f"It is {result}")', ("expression", 'f"It is {result}"')),
    "call of what is no variable": ("FINAL(f(x))", "f(x)"),
    "in a block of another language": ("```text\nFINAL(42)\n```", None),
    "JSON": ('{"answer": 42}', None),
}


@pytest.mark.parametrize(("reply", "expected"), FINALS.values(), ids=FINALS.keys())
def test_finals_in_a_reply_without_cells(reply: str, expected: str | tuple[str, str] | None) -> None:
    """After something was read, a final in prose is taken as it was meant."""
    verdict = judge(
        read_reply(reply).finals, ran_cells=False, cell_failed=False, anything_executed=True, variables={"result"}
    )
    if expected is None:
        assert verdict is None
    elif isinstance(expected, str):
        assert isinstance(verdict, Accepted)
        assert verdict.literal == expected
    else:
        assert isinstance(verdict, Accepted)
        assert getattr(verdict, expected[0]) == expected[1]
        assert verdict.literal is None


REFUSALS = {
    "empty": ("FINAL()", {}, "empty"),
    "empty string": ('FINAL("")', {}, "empty"),
    "nothing read yet": ("FINAL(42)", {"anything_executed": False}, "Nothing has been read"),
    "two that differ": ("FINAL(a)\nFINAL(b)", {}, "2 different finals"),
    "literal beside cells": ("```repl\nprint(1)\n```\nFINAL(1)", {"ran_cells": True}, "before the output"),
    "failed cell": ("```repl\n1/0\n```\nFINAL_VAR(result)", {"ran_cells": True, "cell_failed": True}, "failed"),
    "missing variable": ("FINAL_VAR(nothing)", {}, "no variable nothing"),
    "missing variable beside cells": ("```repl\nx()\n```\nFINAL(nothing)", {"ran_cells": True}, "before the output"),
    "scaffold": ("FINAL(context)", {}, "belongs to the REPL"),
    "scaffold by name": ("FINAL_VAR('llm_query')", {}, "belongs to the REPL"),
    "placeholder": ("FINAL(...)", {}, "placeholder"),
    "placeholder in words": ("FINAL(your final answer)", {}, "placeholder"),
    "sentence for a name": ("FINAL_VAR(the result is 3)", {}, "name of a variable"),
}


@pytest.mark.parametrize(("reply", "given", "why"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_finals(reply: str, given: dict[str, bool], why: str) -> None:
    """What is not accepted is refused with a reason that the model can act on."""
    state = {"ran_cells": False, "cell_failed": False, "anything_executed": True} | given
    verdict = judge(read_reply(reply).finals, variables={"result"}, **state)
    assert isinstance(verdict, Refused)
    assert why in verdict.why


def test_a_variable_counts_beside_cells() -> None:
    """A final beside cells counts if it names a variable that exists after they ran."""
    finals = read_reply("```repl\nresult = 4\n```\nFINAL_VAR(result)").finals
    verdict = judge(finals, ran_cells=True, cell_failed=False, anything_executed=True, variables={"result"})
    assert verdict == Accepted("FINAL_VAR", name="result")


@given(st.text(alphabet="`~\n()'\"#F_INALVR<>/think repl=x1:*\\", max_size=400))
def test_any_reply_is_read(reply: str) -> None:
    """No text makes the reader raise, and what it takes for code stands in the reply."""
    parsed = read_reply(reply)
    for cell in parsed.cells:
        assert all(line.strip() in reply for line in cell.source.split("\n"))
    judge(parsed.finals, ran_cells=False, cell_failed=False, anything_executed=True, variables=())


@pytest.mark.parametrize(
    "reply",
    [
        "FINAL(" * 6000,
        "FINAL(" + "(" * 20_000 + ")" * 20_000,
        "<think>" * 5000,
        "```repl\n" + "-" * 7000 + "1",
        "(" * 7000,
    ],
    ids=["finals", "parentheses", "tags", "unary", "open"],
)
def test_hostile_replies_are_read(reply: str) -> None:
    """Deep or repeated structure neither crashes the reader nor makes it slow beyond the length squared."""
    assert read_reply(reply) is not None
