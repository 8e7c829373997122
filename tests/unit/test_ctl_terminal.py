"""What rlmctl writes: foreign text cannot drive a terminal, pipes get plain lines, figures read well."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.ctl.terminal import Output, ago, count, duration, one_line, shown, size
from rlmd.errors import NotFound
from rlmd.events import Note

HOSTILE = "red\x1b[31m title\x1b]0;pwned\x07 c1\x9b31m bidi\u202ecod\u2069 nul\0 del\x7f raw\udcff"


@given(st.text())
def test_nothing_that_is_shown_can_control_a_terminal(text: str) -> None:
    for sign in shown(text):
        assert sign in "\n\t" or unicodedata.category(sign) not in ("Cc", "Cs"), repr(sign)
        assert unicodedata.bidirectional(sign) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize(
    "code", [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800, 0xDFFF]
)
def test_each_sign_that_could_is_made_harmless(code: int) -> None:
    assert (shown(f"a{chr(code)}b") == f"a{chr(code)}b") is (chr(code) in "\t\n")


def test_controls_stay_visible_and_the_rest_is_untouched() -> None:
    assert shown("a\x1b[31mb") == "a␛[31mb"
    assert shown("one\r\ntwo\rthree\t€ ümläut 漢字 🙂") == "one\ntwo␍three\t€ ümläut 漢字 🙂"


@given(st.text(), st.integers(2, 40))
def test_one_line_is_one_line_of_that_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert len(line.splitlines()) <= 1


def output(**options: bool) -> Output:
    return Output(io.StringIO(), io.StringIO(), **options)


def told(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_an_error_is_a_sentence_and_a_hint_without_controls() -> None:
    out = output()
    out.error(NotFound(f"No context {HOSTILE}.", hint="Try\x1b[2J this."))
    assert told(out.out) == ""
    assert told(out.err).startswith("error: No context red␛[31m title␛]0;pwned␇")
    assert told(out.err).endswith("\n  Try␛[2J this.\n")


def test_colours_only_where_they_are_allowed() -> None:
    plain, coloured = output(), output(colour_out=True, colour_err=True)
    assert plain.painted("x", "bold") == plain.painted_err("x", "bold") == "x"
    assert coloured.painted("x", "bold") == coloured.painted_err("x", "bold") == "\x1b[1mx\x1b[0m"


@pytest.mark.parametrize(
    ("environment", "colour", "live"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({}, False, False),
    ],
)
def test_what_a_terminal_gets(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colour: bool, live: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", Terminal())
    made = Output.standard(environment=environment)
    assert (made.colour_out, made.colour_err, made.live) == (colour, colour, live)
    assert Output.standard(environment=environment, quiet=True).live is False


def test_a_pipe_gets_no_colours_and_no_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    made = Output.standard(environment={"TERM": "xterm"})
    assert (made.colour_out, made.colour_err, made.live) == (False, False, False)


def test_a_table_in_a_pipe_is_tab_separated_without_a_header() -> None:
    out = output()
    out.table(("NAME", "SIZE"), [("a\tb\nc", "1"), (HOSTILE, "2")])
    lines = told(out.out).splitlines()
    assert lines[0] == "a b c\t1"
    assert len(lines) == 2
    assert "\x1b" not in lines[1]


def test_json_never_carries_a_raw_control_character() -> None:
    out = output()
    out.json_line(Note(run_id="r", seq=1, time=0, text="a\x1b[31m\nb"))
    assert told(out.out).count("\n") == 1
    assert "\x1b" not in told(out.out)


def test_quiet_leaves_out_remarks_and_keeps_errors() -> None:
    out = output(quiet=True)
    out.remark("loaded")
    out.error(NotFound("no"))
    assert told(out.err) == "error: no\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3725, "1:02:05"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (11_481_948, "11.5 MB"), (2e9, "2 GB"), (5e13, "50 TB")],
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


def test_counts_and_ages() -> None:
    assert [count(1, "file"), count(1204, "file"), count(2, "reply", "replies")] == [
        "1 file",
        "1,204 files",
        "2 replies",
    ]
    assert [ago(5), ago(65), ago(7300), ago(90_000)] == ["now", "1 min ago", "2 h ago", "1 d ago"]


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("context/list shows those that there are.", "rlmctl context list shows those that there are."),
        ("See host/add, or daemon/status.", "See rlmctl host add, or rlmctl status."),
        ("Try run/fetch.", "Try run/fetch."),
        (
            "In /srv/context/list and run/list/a and my-run/list.",
            "In /srv/context/list and run/list/a and my-run/list.",
        ),
    ],
)
def test_a_hint_names_commands_where_the_daemon_names_methods(hint: str, told: str) -> None:
    out = output()
    out.hint(hint)
    assert isinstance(out.err, io.StringIO)
    assert out.err.getvalue() == f"  {told}\n"
