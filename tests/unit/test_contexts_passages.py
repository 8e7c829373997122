"""Passages: nothing but white space is lost, offsets are exact, borders are the writer's."""

from hypothesis import given
from hypothesis import strategies as st

from rlmd.contexts.passages import MAX_CHARS, passages, syntax_of

LINES = st.lists(
    st.sampled_from(
        ["\n", "Title\n", "=====\n", "-----\n", "# Heading\n", "* item\n", "  1. item\n", "a sentence of some words.\n",
         "def name(x):\n", "    indented\n", "word " * 300 + "\n", "x" * 2500 + "\n", "\r\n", "   \n", "no line end"]
    ),
    max_size=60,
)  # fmt: skip


def lines_of(text: str) -> list[str]:
    return [line for line in text.replace("\n", "\n\v").split("\v") if line]


@given(LINES, st.sampled_from(["plain", "markdown", "org", "code"]))
def test_passages_hold_everything_in_order(lines: list[str], syntax: str) -> None:
    text = "".join(lines)
    end = 0
    for passage in passages(lines_of(text), syntax):  # type: ignore[arg-type]
        assert not text[end : passage.start].strip()
        assert text[passage.start : passage.end] == passage.text
        assert passage.text.strip()
        assert passage.line == text.count("\n", 0, passage.start) + 1
        assert len(passage.text) <= 2 * MAX_CHARS
        end = passage.end
    assert not text[end:].strip()


RST = """\
=====
Guide
=====

An introduction that is here only to be long enough for a passage of its own. {fill}

Install
-------

Run the command. {fill}

Details
~~~~~~~

More on that. {fill}

Use
---

Call it. {fill}
""".format(fill="Some words to fill the line. " * 10)


def test_headings_of_restructured_text_make_a_trail() -> None:
    trails = [passage.trail for passage in passages(lines_of(RST))]
    assert trails == [("Guide",), ("Guide", "Install"), ("Guide", "Install", "Details"), ("Guide", "Use")]


def test_headings_depend_on_the_kind_of_document() -> None:
    fill = "words of a paragraph " * 15 + "\n\n"
    for name, text, headings in (
        ("a.md", f"# One\n\n{fill}## Two\n\n{fill}# Three\n\n{fill}", [("One",), ("One", "Two"), ("Three",)]),
        ("a.org", f"* One\n{fill}** Two\n{fill}", [("One",), ("One", "Two")]),
        ("a.py", f"class A:\n  '''{fill}'''\n  def b(self):\n    '''{fill}'''\n", [("A",), ("A", "b")]),
        ("a.rst", f"* an item\n\n{fill}# no heading\n\n{fill}", [(), ()]),
    ):
        found = [p.trail for p in passages(lines_of(text), syntax_of(name))]
        assert list(dict.fromkeys(found)) == list(dict.fromkeys(headings)), name


def test_a_list_is_cut_between_its_items() -> None:
    text = "Rules:\n\n" + "".join(f" - rule {n} says {'something ' * 12}\n   and goes on\n" for n in range(20))
    found = list(passages(lines_of(text)))
    assert len(found) > 1
    assert found[0].text.startswith("Rules:")
    assert all(p.text.startswith(" - rule") for p in found[1:])


def test_headings_without_marks_are_lines_alone_above_a_paragraph() -> None:
    """As in text made of pages: neither a list of short lines nor an item nor a sentence is a heading."""
    fill = "words of a paragraph " * 15 + "\n\n"
    text = f"The Guide\n\nInstall\n\nRun\n\n{fill}Install\n\n{fill}- an item\n\n{fill}Use\n\n{fill}It ends.\n\n{fill}"
    trails = [passage.trail for passage in passages(lines_of(text))]
    assert list(dict.fromkeys(trails)) == [("The Guide", "Run"), ("The Guide", "Install"), ("The Guide", "Use")]
