"""``rlmctl ask`` as a process against a scripted daemon: what it sends, prints, and leaves with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlmd.wire.methods import INLINE_BYTES
from tests.fakes.daemon import FakeDaemon, Peer, Refusal, fake_daemon
from tests.harness import Folders
from tests.shell import on_terminal, rlmctl, start

RECEIPT = {
    "chars_total": 10, "chars_searched": 10, "chars_read": 0, "pieces": 0, "pieces_failed": 0, "sub_queries": 0,
    "sub_queries_cached": 0, "turns": 0, "wall_seconds": 0.5, "summary": "searched 10 of 10 characters in 0.5 s",
}  # fmt: skip
CITATION = {
    "number": 1, "quote": "the very words", "verified": True, "match": "exact", "context": "text", "revision": 1,
    "document": "a.txt", "start": 0, "end": 14, "locator": {"label": "a.txt:1", "path": "/src/a.txt", "line": 1},
}  # fmt: skip
HOSTILE = "safe \x1b[31mred\x07 end"


class Scripted:
    """A daemon that loads everything and answers every question the same."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.outcome = "answered"
        self.state = "ended"
        self.answer = "It is so."
        self.notes: tuple[str, ...] = ()
        self.spooled: list[tuple[bytes, int]] = []
        self.visible = True
        #: While set, a run does not end by itself.
        self.endless = False
        self.started = asyncio.Event()
        self.peer: Peer | None = None
        self.run_id = ""
        daemon.answers |= {
            "context/load": self.load,
            "run/start": self.start,
            "run/show": self.show,
            "run/cancel": self.cancel,
        }

    def sent(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.daemon.seen if name == method]

    async def load(self, _peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        source = params["source"]
        if source["kind"] == "path" and not self.visible:
            raise Refusal({"code": 1008, "message": "not visible", "data": {"kind": "not_visible", "hint": "spool"}})
        if source["kind"] == "spool":
            file = self.daemon.socket.parent / "spool" / source["file"]
            self.spooled.append((file.read_bytes(), stat.S_IMODE(file.stat().st_mode)))
            file.unlink()
        context = {
            "name": f"text-{len(self.sent('context/load'))}", "revision": 1, "kind": "text", "private": False,
            "implicit": True, "documents": 1, "chars": 10, "bytes": 10, "digest": "d", "created": 0, "updated": 0,
            "sources": [],
        }  # fmt: skip
        return {"change": "created", "context": context, "documents": 1, "chars": 10, "bytes": 10}

    def info(self, state: str, outcome: str | None) -> dict[str, Any]:
        return {
            "run_id": self.run_id, "question": {"chars": 1, "text": "?"}, "state": state, "outcome": outcome,
            "strategy": "quote", "contexts": [], "session": None, "private": False, "created": 0, "ended": 1,
            "turns": 0, "sub_queries": 0, "last_seq": 9, "why": "for a reason",
        }  # fmt: skip

    async def start(self, peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        self.run_id = params["run_id"]
        self.peer = peer
        if params["attach"]:
            facts = [{"type": "note", "text": note} for note in self.notes]
            facts += [{"type": "strategy_chosen", "strategy": "quote", "why": "there is no model"}]
            for seq, fact in enumerate(facts, 1):
                await peer.notify("run/fact", {"run_id": self.run_id, "seq": seq, "time": 0, **fact})
            if not self.endless:
                await self.end(len(facts) + 1)
        self.started.set()
        return {**self.info("running", None), "last_seq": 0}

    async def end(self, seq: int) -> None:
        assert self.peer is not None
        fact = {
            "type": "run_ended", "run_id": self.run_id, "seq": seq, "time": 0, "outcome": self.outcome, "stream": None,
            "why": "", "answer": {"chars": 1, "text": "x"}, "receipt": RECEIPT,
        }  # fmt: skip
        await self.peer.notify("run/fact", fact)

    async def show(self, _peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        run = self.info(self.state, self.outcome)
        return {"run": run, "answer": self.answer, "citations": [CITATION], "receipt": RECEIPT}

    async def cancel(self, _peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        self.state = self.outcome = "cancelled"
        await self.end(2)
        return self.info("cancelled", "cancelled")


@pytest.fixture
async def scripted(folders: Folders) -> AsyncIterator[Scripted]:
    folders.socket.parent.mkdir(mode=0o700)
    async with fake_daemon(folders.socket.parent) as running:
        yield Scripted(running)


@pytest.fixture
def environment(folders: Folders) -> dict[str, str]:
    return folders.environment()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "a.txt"
    file.write_text("the very words")
    return file


async def test_the_answer_alone_is_on_stdout(scripted: Scripted, environment: dict[str, str], text: Path) -> None:
    scripted.notes = (f"No model was used. {HOSTILE}",)
    scripted.answer = f"It is so. {HOSTILE}"
    ended = await rlmctl(environment, "ask", "-f", str(text), "Is it?")
    assert ended.status == 0
    assert ended.out == 'It is so. safe ␛[31mred␇ end\n\n[1] /src/a.txt:1: "the very words"\n'
    assert ended.err.splitlines() == [
        "text-1: 1 document, 10 characters (10 B), created",
        "No model was used. safe ␛[31mred␇ end",
        "searched 10 of 10 characters in 0.5 s",
    ]


async def test_a_file_goes_by_path_with_its_identity(
    scripted: Scripted, environment: dict[str, str], text: Path
) -> None:
    ended = await rlmctl(environment, "ask", "-q", "-f", "a.txt", "Is it?", cwd=str(text.parent))
    assert (ended.status, ended.err) == (0, "")
    (load,) = scripted.sent("context/load")
    status = text.stat()
    assert load["source"] == {
        "kind": "path",
        "paths": [str(text)],
        "include": [],
        "exclude": [],
        "everything": False,
        "convert": True,
        "confined": False,
        "identity": {
            "device": str(status.st_dev),
            "inode": str(status.st_ino),
            "size": str(status.st_size),
            "mtime_ns": str(status.st_mtime_ns),
        },
    }
    assert scripted.sent("run/start")[0]["contexts"] == ["text-1"]


async def test_a_file_that_the_daemon_does_not_see_is_spooled(
    scripted: Scripted, environment: dict[str, str], text: Path
) -> None:
    scripted.visible = False
    text.write_bytes(b"x" * (INLINE_BYTES + 1))
    ended = await rlmctl(environment, "ask", "-f", str(text), "Is it?")
    assert ended.status == 0
    assert scripted.spooled == [(text.read_bytes(), 0o600)]
    assert scripted.sent("context/load")[1]["source"]["origin"] == str(text)
    assert list((scripted.daemon.socket.parent / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "inline"),
    [
        ("short, with ümläut".encode(), True),
        (b"x" * INLINE_BYTES, True),
        (b"x" * (INLINE_BYTES + 1), False),
        (b"not UTF-8: \xff", False),
        (b"a nul: \0", False),
    ],
    ids=["short", "just inline", "just too long", "not UTF-8", "nul"],
)
async def test_standard_input_goes_inline_when_short_and_clean(
    scripted: Scripted, environment: dict[str, str], data: bytes, inline: bool
) -> None:
    ended = await rlmctl(environment, "ask", "--stdin", "Is it?", stdin=data)
    assert ended.status == 0
    (load,) = scripted.sent("context/load")
    assert load["source"]["origin"] == "stdin"
    if inline:
        assert load["source"]["text"].encode() == data
    else:
        assert scripted.spooled == [(data, 0o600)]


async def test_a_refused_spool_file_does_not_stay(scripted: Scripted, environment: dict[str, str]) -> None:
    async def refuse(_peer: Peer, _params: dict[str, Any]) -> None:
        raise Refusal({"code": 1007, "message": "binary", "data": {"kind": "not_text", "hint": "convert it"}})

    scripted.daemon.answers["context/load"] = refuse
    ended = await rlmctl(environment, "ask", "--stdin", "Is it?", stdin=b"\0" * 10)
    assert (ended.status, ended.err) == (1, "error: binary\n  convert it\n")
    assert list((scripted.daemon.socket.parent / "spool").iterdir()) == []


async def test_a_name_that_is_not_utf8_is_spooled(
    scripted: Scripted, environment: dict[str, str], tmp_path: Path
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(name, "wb") as file:
        file.write(b"words")
    ended = await rlmctl(environment, "ask", "-f", name, "Is it?")
    assert ended.status == 0
    (load,) = scripted.sent("context/load")
    assert load["source"]["text"] == "words"
    assert load["source"]["origin"].endswith("caf\N{REPLACEMENT CHARACTER}.txt")


async def test_several_sources_become_several_contexts_each_once(
    scripted: Scripted, environment: dict[str, str], text: Path
) -> None:
    arguments = ("-f", str(text), "-f", str(text.parent), "-c", "kept", "-c", "kept", "--exclude", "*.o")
    ended = await rlmctl(environment, "ask", *arguments, "Is it?")
    assert ended.status == 0
    assert scripted.sent("run/start")[0]["contexts"] == ["kept", "text-1", "text-2"]
    directory = scripted.sent("context/load")[1]["source"]
    assert (directory["paths"], directory["exclude"]) == ([str(text.parent)], ["*.o"])
    assert "identity" not in directory


@pytest.mark.parametrize(
    ("outcome", "state", "status"),
    [
        ("answered", "ended", 0), ("partial", "ended", 3), ("none", "ended", 3), ("failed", "failed", 1),
        (None, "interrupted", 3),
    ],
)  # fmt: skip
async def test_the_exit_status_says_how_the_run_ended(
    scripted: Scripted, environment: dict[str, str], outcome: str | None, state: str, status: int
) -> None:
    scripted.outcome, scripted.state = outcome or "failed", state
    if outcome is None:

        async def show(_peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
            return {"run": scripted.info(state, None), "answer": None}

        scripted.daemon.answers["run/show"] = show
    ended = await rlmctl(environment, "ask", "-c", "text", "Is it?")
    assert ended.status == status
    assert ("for a reason" in ended.err) is (outcome != "answered")


async def test_json_and_events(scripted: Scripted, environment: dict[str, str]) -> None:
    as_json = await rlmctl(environment, "ask", "-c", "text", "--json", "Is it?")
    assert json.loads(as_json.out)["answer"] == "It is so."
    as_events = await rlmctl(environment, "ask", "-c", "text", "--events", "Is it?")
    facts = [json.loads(line) for line in as_events.out.splitlines()]
    assert [(fact["seq"], fact["type"]) for fact in facts] == [(1, "strategy_chosen"), (2, "run_ended")]


async def test_detached_prints_the_id_and_nothing_else(scripted: Scripted, environment: dict[str, str]) -> None:
    ended = await rlmctl(environment, "ask", "-c", "text", "--detach", "Is it?")
    assert (ended.status, ended.out) == (0, scripted.run_id + "\n")
    assert scripted.sent("run/start")[0]["attach"] is False


async def test_options_become_parameters(scripted: Scripted, environment: dict[str, str]) -> None:
    arguments = ("--root", "m40/qwen", "--model", "rtx/llama", "--limit", "turns=3", "--limit", "sub-queries=9")
    schema = Path(environment["HOME"], "schema.json")
    schema.write_text('{"type": "object"}')
    arguments += ("--schema", str(schema))
    ended = await rlmctl(environment, "ask", "-c", "text", *arguments, "--fresh", "--session", "s", "Is it?")
    assert ended.status == 0
    (params,) = scripted.sent("run/start")
    assert (params["root"], params["sub"]) == (["m40/qwen"], ["rtx/llama"])
    assert params["limits"] == {"turns": 3, "sub_queries": 9}
    assert (params["fresh"], params["session"], params["schema"]) == (True, "s", {"type": "object"})


async def test_yes_is_said_for_the_person(scripted: Scripted, environment: dict[str, str], text: Path) -> None:
    for option, told in ((), "ask"), (("--yes",), "accept"):
        await rlmctl(environment, "ask", "-f", str(text), *option, "Is it?")
        assert scripted.sent("run/start")[-1]["confirm"] == told


@pytest.mark.parametrize(
    "arguments",
    [
        ("Is it?", "--json", "--events", "-c", "x"), (" ", "-c", "x"), ("Is it?", "--limit", "turns", "-c", "x"),
        ("Is it?", "--limit", "turns=many", "-c", "x"), ("Is it?", "--schema", "/dev/null", "-c", "x"),
        ("Is it?", "--schema", "/nowhere", "-c", "x"), ("Is it?", "--stdin", "-f", "-"), ("Is it?", "--nonsense"),
    ],
)  # fmt: skip
async def test_wrong_usage_leaves_with_2_and_asks_nothing(
    scripted: Scripted, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    ended = await rlmctl(environment, "ask", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err
    assert scripted.daemon.seen == []


async def test_a_missing_file_is_told_before_anything_is_asked(scripted: Scripted, environment: dict[str, str]) -> None:
    ended = await rlmctl(environment, "ask", "-f", "/nonexistent\x1b[31m", "Is it?")
    assert ended.status == 4
    assert "\x1b" not in ended.err
    assert "nonexistent" in ended.err
    assert scripted.sent("run/start") == []


async def test_a_session_without_text_goes_on_with_its_own(scripted: Scripted, environment: dict[str, str]) -> None:
    pin = {
        "context": "kept", "revision": 2, "kind": "text", "private": False, "documents": 1, "chars": 1, "digest": "d",
    }  # fmt: skip
    session = {
        "name": "s", "held_by": None, "contexts": [pin], "private": False, "cells": 1, "alive": True, "used": 0,
    }  # fmt: skip

    async def sessions(_peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        return {"sessions": [session]}

    scripted.daemon.answers["session/list"] = sessions
    known = await rlmctl(environment, "ask", "--session", "s", "Is it?")
    assert known.status == 0
    assert scripted.sent("run/start")[0]["contexts"] == ["kept"]
    unknown = await rlmctl(environment, "ask", "--session", "t", "Is it?")
    assert unknown.status == 4


async def test_sigint_in_a_pipe_cancels_the_run(scripted: Scripted, environment: dict[str, str]) -> None:
    scripted.endless = True
    process = await start(environment, "ask", "-c", "text", "--events", "Is it?")
    assert process.stdout is not None
    await process.stdout.readline()  # the first fact: it follows, so it catches signals
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["type"] == "run_ended"
    assert len(scripted.sent("run/cancel")) == 1


async def test_who_stops_reading_does_not_cause_a_traceback(scripted: Scripted, environment: dict[str, str]) -> None:
    scripted.answer = "long " * 100_000
    process = await start(environment, "ask", "-c", "text", "Is it?")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]
    err = await process.stderr.read()
    assert await process.wait() == 141
    assert b"Traceback" not in err


async def test_on_a_terminal_progress_is_live_and_gone_at_the_end(
    scripted: Scripted, environment: dict[str, str]
) -> None:
    scripted.endless = True
    with on_terminal(environment, "ask", "-c", "text", "Is it?") as terminal:
        await terminal.wait_shown("there is no model")
        assert "\x1b[" in terminal.screen
        await scripted.end(2)
        assert await terminal.wait_ended() == 0
    after = terminal.screen.rpartition("\x1b[2K")[2]  # the last line that was erased
    assert "It is so." in after
    assert "there is no model" not in after


async def test_no_color_is_heeded_on_a_terminal(scripted: Scripted, environment: dict[str, str]) -> None:
    with on_terminal({**environment, "NO_COLOR": "1"}, "ask", "-c", "text", "Is it?") as terminal:
        assert await terminal.wait_ended() == 0
    styles = [part.partition("m")[0] for part in terminal.screen.split("\x1b[")[1:] if "m" in part]
    assert not any(style.replace(";", "").isdigit() and style[0] in "34" for style in styles), styles


async def test_ctrl_c_offers_to_detach(scripted: Scripted, environment: dict[str, str]) -> None:
    scripted.endless = True
    with on_terminal(environment, "ask", "-c", "text", "Is it?") as terminal:
        await terminal.wait_shown("there is no model")
        terminal.type("\x03")
        await terminal.wait_shown("d Enter detaches")
        terminal.type("d\r")
        assert await terminal.wait_ended() == 0
    _, told, after = terminal.screen.partition(f"rlmctl run attach {scripted.run_id}")
    assert told, terminal.screen
    assert "\x1b[2K" not in after, "the display erased what was said"
    assert scripted.sent("run/cancel") == []
    assert len(scripted.sent("run/detach")) == 1


async def test_ctrl_c_twice_cancels(scripted: Scripted, environment: dict[str, str]) -> None:
    scripted.endless = True
    with on_terminal(environment, "ask", "-c", "text", "Is it?") as terminal:
        await terminal.wait_shown("there is no model")
        terminal.type("\x03")
        await terminal.wait_shown("d Enter detaches")
        terminal.type("\x03")
        assert await terminal.wait_ended() == 130
    assert len(scripted.sent("run/cancel")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_ended_by_a_signal_it_leaves_the_terminal_as_it_was_and_the_run_alone(
    scripted: Scripted, environment: dict[str, str], number: int
) -> None:
    scripted.endless = True
    with on_terminal(environment, "ask", "-c", "text", "Is it?") as terminal:
        await terminal.wait_shown("there is no model")
        terminal.send_signal(number)
        assert await terminal.wait_ended() == 143
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l"), "the cursor stayed hidden"
    assert scripted.sent("run/cancel") == []


async def test_ctrl_c_while_loading_leaves_quietly_and_withdraws_the_load(
    scripted: Scripted, environment: dict[str, str], text: Path
) -> None:
    came = asyncio.Event()

    async def hang(_peer: Peer, _params: dict[str, Any]) -> None:
        came.set()
        await asyncio.Event().wait()

    scripted.daemon.answers["context/load"] = hang
    process = await start(environment, "ask", "-f", str(text), "Is it?")
    await came.wait()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")
    await scripted.daemon.notified.wait()
    assert scripted.daemon.seen[-1][0] == "$/cancelRequest"


async def test_a_listener_that_is_no_daemon_is_told(folders: Folders, environment: dict[str, str]) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()
        writer.close()

    folders.socket.parent.mkdir(mode=0o700)
    server = await asyncio.start_unix_server(babble, folders.socket)
    try:
        ended = await rlmctl(environment, "status")
    finally:
        server.close()
    assert ended.status == 5
    assert "not JSON" in ended.err
    assert "Another program may be listening there." in ended.err
