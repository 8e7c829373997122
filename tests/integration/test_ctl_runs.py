"""rlmctl against the real daemon, from the question to the quoted answer, with and without a model."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted
from tests.harness import Daemon, Folders, Host, config_of
from tests.shell import Ended, on_terminal, rlmctl, start

HISTORY = "\n\n".join(f"In {1700 + year} the mill was quiet, and nothing of note came to pass." for year in range(90))
FIRE = "The mill burned down in the dry summer of 1804, because a lantern was left among the sacks."


@pytest.fixture
def village(tmp_path: Path) -> Path:
    folder = tmp_path / "village"
    folder.mkdir()
    (folder / "history.txt").write_text(HISTORY)
    (folder / "fire.txt").write_text(f"Of the fire.\n\n{FIRE}\n\nIt was built anew of stone.\n")
    return folder


class Shell:
    def __init__(self, folders: Folders) -> None:
        self.folders = folders

    async def __call__(self, *arguments: str, stdin: bytes | None = None, cwd: Path | None = None) -> Ended:
        return await rlmctl(self.folders.environment(), *arguments, stdin=stdin, cwd=str(cwd) if cwd else None)


def quoted_places(out: str, words: str) -> list[tuple[str, int]]:
    """Where the passages that an answer shows say that the words stand: file and line of the words themselves."""
    places = []
    for label, first, quote in re.findall(r"^\[\d+\] (.+):(\d+):\n((?:>.*\n)+)", out, flags=re.MULTILINE):
        places += [(label, int(first) + n) for n, line in enumerate(quote.splitlines()) if words in line]
    return places


@pytest.fixture
async def shell(daemon: Daemon, folders: Folders) -> Shell:
    """A daemon without any host runs."""
    return Shell(folders)


async def test_without_a_model_the_answer_is_quoted_and_says_so(shell: Shell, village: Path) -> None:
    ended = await shell("ask", "-f", "village", "Why did the mill burn down?", cwd=village.parent)
    assert ended.status == 0, ended.err
    assert FIRE in ended.out
    assert "No language model was used" in ended.out
    assert "rlmctl host add" in ended.out
    assert (str(village / "fire.txt"), 3) in quoted_places(ended.out, FIRE)
    assert not [line for line in ended.out.splitlines() if line.startswith("[1]") and line.endswith('"')], (
        "a citation that the answer shows is not listed again"
    )
    assert ended.err.splitlines()[-1].startswith("searched all ")


async def test_quotes_are_no_answer_where_a_model_was_named(shell: Shell, village: Path) -> None:
    ended = await shell("ask", "-f", str(village), "--model", "gpu/qwen", "Why did the mill burn down?")
    assert (ended.status, ended.out) == (1, "")
    assert "No model is there, and this run was to ask gpu/qwen." in ended.err
    assert "rlmctl setup" in ended.err
    sub = await shell("ask", "-f", str(village), "--sub", "gpu/small", "Why did the mill burn down?")
    assert (sub.status, sub.out) == (1, "")
    assert "this run was to ask gpu/small." in sub.err
    quoted = await shell("ask", "-f", str(village), "--model", "gpu/qwen", "--strategy", "quote", "Why did it burn?")
    assert quoted.status == 0, quoted.err


async def test_what_was_asked_can_be_listed_shown_attached_and_followed_again(shell: Shell, village: Path) -> None:
    asked = await shell("ask", "-f", str(village), "-q", "Why did the mill burn down?")
    listed = await shell("run", "list")
    run_id, outcome, *_ = listed.out.splitlines()[0].split("\t")
    assert outcome == "answered"
    for command in (("run", "show", run_id[:6]), ("run", "attach", run_id)):
        again = await shell(*command)
        assert (again.status, again.out) == (0, asked.out)
    facts = [json.loads(line) for line in (await shell("run", "show", "--events", run_id)).out.splitlines()]
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    assert (facts[0]["type"], facts[-1]["type"]) == ("run_started", "run_ended")
    result = json.loads((await shell("run", "show", "--json", run_id)).out)
    assert all(citation["verified"] for citation in result["citations"])


async def test_a_file_that_changed_is_read_anew_and_one_that_did_not_is_not(shell: Shell, village: Path) -> None:
    file = village / "fire.txt"
    first = await shell("ask", "-f", str(file), "Why did the mill burn down?")
    assert "created" in first.err
    again = await shell("ask", "-f", str(file), "Why did the mill burn down?")
    assert "1 document" not in again.err
    file.write_text("The mill burned down because of lightning.\n")
    changed = await shell("ask", "-f", str(file), "Why did the mill burn down?")
    assert "lightning" in changed.out
    assert "lantern" not in changed.out


async def test_standard_input_is_cited_by_line(shell: Shell) -> None:
    ended = await shell("ask", "When did the mill burn down?", stdin=f"{HISTORY}\n\n{FIRE}\n".encode())
    line = f"{HISTORY}\n\n".count("\n") + 1
    assert ("stdin", line) in quoted_places(ended.out, FIRE)


async def test_empty_input_and_questions_without_an_answer(shell: Shell) -> None:
    empty = await shell("ask", "Why?", stdin=b"")
    assert (empty.status, empty.out) == (2, "")
    nothing = await shell("ask", "zygote xylophone?", stdin=b"The mill is of stone.\n")
    assert nothing.status == 3


async def test_cells_in_a_session_keep_their_names(shell: Shell, village: Path) -> None:
    await shell("context", "load", str(village), "--name", "village")
    first = await shell("exec", "-c", "village", "--session", "s", "n = len(documents); print(n)\nn * 2")
    assert (first.status, first.out) == (0, "2\n4\n"), first.err
    assert (await shell("exec", "--session", "s", "n + 1")).out == "3\n"
    wrong = await shell("exec", "--session", "s", "-", stdin=b"1 / 0")
    assert wrong.status == 1
    assert "ZeroDivisionError" in wrong.out
    assert (await shell("session", "list")).out.startswith("s\t")
    assert (await shell("session", "drop", "s")).status == 0
    assert (await shell("session", "list")).out == ""


@pytest.mark.parametrize(
    "command",
    [
        ("ask", "-c", "nothing", "Why?"), ("run", "show", "99999999"), ("context", "drop", "nothing"),
        ("session", "drop", "nothing"), ("host", "remove", "nothing"),
    ],
)  # fmt: skip
async def test_what_does_not_exist_leaves_with_4_and_a_hint(shell: Shell, command: tuple[str, ...]) -> None:
    ended = await shell(*command)
    assert (ended.status, ended.out) == (4, "")
    assert len(ended.err.splitlines()) == 2
    assert "/list" not in ended.err


async def test_completion_knows_contexts_and_runs(shell: Shell, village: Path) -> None:
    await shell("context", "load", str(village), "--name", "village")

    async def complete(*words: str) -> list[str]:
        environment = {
            **shell.folders.environment(),
            "_RLMCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("rlmctl", *words)),
            "COMP_CWORD": str(len(words)),
        }
        return (await rlmctl(environment)).out.split()

    assert "village" in await complete("ask", "-c", "vil")
    assert await complete("context", "drop", "vil") == ["village"]
    assert await complete("context", "drop", "zzz") == []


async def test_doctor_and_status_tell_about_a_real_daemon(shell: Shell) -> None:
    checked = await shell("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(checked.out)["checks"]}
    assert checks["cage: seccomp"]["ok"]
    told = await shell("status")
    assert told.status == 0
    assert "hosts     none" in told.out


async def test_a_layer_that_is_not_needed_is_no_failure(start_daemon: StartDaemon, folders: Folders) -> None:
    folders.write_config("[repl]\nbubblewrap = false\n")
    await start_daemon()
    checked = await Shell(folders)("doctor")
    assert checked.status == 0, checked.out
    assert "\n--   cage: bubblewrap: " in checked.out
    assert "FAIL" not in checked.out


# ── with a model ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama([FakeModel("root", window=8192)]) as fake:
        yield fake


async def test_a_model_answers_and_its_quotes_are_checked(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    await start_daemon()
    shell = Shell(folders)
    ollama.script("root", [Scripted(f'A lantern: "{FIRE}" But "the miller confessed it".')])
    ended = await shell("ask", "-f", str(village / "fire.txt"), "Why did the mill burn down?")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].startswith("A lantern:")
    assert f'fire.txt:3: "{FIRE}"' in lines[-2]
    assert lines[-1] == '[2] not found in the text: "the miller confessed it"'


async def test_a_run_that_a_limit_ended_is_continued_from_the_shell(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    """It says how; then facts go on, the daemon is killed in the middle, and the whole can be followed once more."""
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    daemon = await start_daemon()
    shell = Shell(folders)
    look, more = "```repl\nx = len(documents)\nprint(x)\n```", "```repl\ny = x + 40\nprint(y)\n```"
    ollama.script("root", [look, "It has two documents."])
    asked = await shell("ask", "-f", str(village), "--strategy", "rlm", "--limit", "turns=2", "How many?")
    assert asked.status == 3, asked.err
    told = asked.err.partition("rlmctl run continue ")[2].split()[0]
    wrong = await shell("run", "continue", told, "--minutes", "3")
    assert wrong.status == 2
    assert "limit of turns" in wrong.err
    ollama.script("root", [more, Scripted("FINAL_VAR(y)", fault="hang", after=2)])
    left = await shell("run", "continue", told, "--turns", "4", "--detach")
    assert (left.status, left.out) == (0, ""), left.err
    again = await shell("run", "continue", told)
    assert again.status == 1
    assert "goes on" in again.err
    await ollama.until(lambda: len(ollama.seen) == 4)
    await daemon.kill()
    ollama.script("root", ["FINAL_VAR(y)"])
    await start_daemon()
    followed = await shell("run", "attach", told)
    assert (followed.status, followed.out) == (0, "42\n"), followed.err
    assert "run continue" not in followed.err
    facts = [json.loads(line) for line in (await shell("run", "show", "--events", told)).out.splitlines()]
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    kinds = [fact["type"] for fact in facts]
    assert (kinds.count("run_ended"), kinds.count("run_continued"), kinds.count("run_resumed")) == (2, 1, 1)
    done = await shell("run", "continue", told)
    assert done.status == 1
    assert "ended by itself" in done.err
    page = await shell("run", "export", told)
    assert "continued after its limit of turns" in page.out


async def test_a_continued_run_is_told_from_there(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    await start_daemon()
    shell = Shell(folders)
    ollama.script("root", ["```repl\nx = 42\nprint(x)\n```", "A last word."])
    arguments = ("ask", "-f", str(village), "--strategy", "rlm", "--limit", "turns=2", "--events", "How many?")
    before = [json.loads(line) for line in (await shell(*arguments)).out.splitlines()]
    ollama.script("root", ["FINAL_VAR(x)"])
    told = await shell("run", "continue", before[0]["run_id"], "--events")
    assert told.status == 0, told.err
    facts = [json.loads(line) for line in told.out.splitlines()]
    assert (facts[0]["type"], facts[0]["seq"]) == ("run_continued", len(before) + 1)
    assert facts[0]["limits"]["turns"] == 4
    assert (facts[-1]["type"], facts[-1]["answer"]["text"]) == ("run_ended", "42")


async def test_ctrl_c_twice_ends_the_run_at_the_daemon(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    await start_daemon()
    ollama.script("root", [Scripted("slowly " * 500, fault="hang", after=100)])
    shell = Shell(folders)
    with on_terminal(folders.environment(), "ask", "-f", str(village / "fire.txt"), "Why?") as terminal:
        await terminal.wait_shown("turn 1")
        terminal.type("\x03")
        await terminal.wait_shown("detaches")
        terminal.type("\x03")
        assert await terminal.wait_ended() == 130
    assert (await shell("run", "list")).out.split("\t")[1] == "cancelled"


async def test_a_daemon_that_dies_is_started_again_and_the_run_goes_on(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    daemon = await start_daemon()
    ollama.script("root", [Scripted("slowly " * 500, fault="hang", after=100), "The oven."])
    process = await start(folders.environment(), "ask", "-f", str(village / "fire.txt"), "--events", "Why?")
    assert process.stdout is not None
    try:
        while json.loads(await process.stdout.readline())["type"] != "turn_started":
            pass
        await daemon.kill()
        out, err = await process.communicate()
        assert process.returncode == 0, err
        last = json.loads(out.splitlines()[-1])
        assert last["type"] == "run_ended"
        again = await Shell(folders)("run", "attach", last["run_id"])
        assert (again.status, "The oven." in again.out) == (0, True), again
    finally:
        await Shell(folders)("daemon", "stop")


async def test_a_daemon_that_is_stopped_is_not_started_for_the_run(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    """Who asked is told how to come back; the run goes on with the next daemon."""
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    daemon = await start_daemon()
    ollama.script("root", [Scripted("slowly " * 500, fault="hang", after=100), "The oven."])
    process = await start(folders.environment(), "ask", "-f", str(village / "fire.txt"), "Why?")
    await ollama.until(lambda: ollama.serving == 1)
    assert await daemon.stop() == 0
    _, err = await process.communicate()
    assert process.returncode == 3, err
    assert "goes on when it is started again" in err.decode()
    assert not folders.socket.exists()
    run_id = err.decode().split("rlmctl run attach ")[1].split()[0]
    again = await start_daemon()
    attached = await Shell(folders)("run", "attach", run_id)
    assert (attached.status, "The oven." in attached.out) == (0, True), attached
    await again.stop()


async def test_a_session_goes_on_with_the_next_daemon(
    start_daemon: StartDaemon, folders: Folders, ollama: FakeOllama, village: Path
) -> None:
    """A follow-up question finds the names of the first, though the daemon was killed in between."""
    folders.write_config(config_of([Host("m40", ollama.url, models={"root": 8192})]))
    daemon = await start_daemon()
    shell = Shell(folders)
    ollama.script("root", ["```repl\nburned = grep('burned')[0]\n```", "FINAL_VAR(burned)"])
    asked = ("ask", "-f", str(village / "fire.txt"), "--strategy", "rlm", "--session", "mill")
    first = await shell(*asked, "What burned?")
    assert (first.status, FIRE in first.out) == (0, True), first
    await daemon.kill()
    daemon = await start_daemon()
    shown = await shell("session", "show", "mill")
    assert re.search(r"^burned\t", shown.out, re.MULTILINE), shown
    assert "What burned?" in shown.err
    ollama.script("root", ["```repl\nyear = burned.split('of ')[-1][:4]\n```\nFINAL_VAR(year)"])
    second = await shell(*asked, "When?")
    assert (second.status, second.out.splitlines()[0]) == (0, "1804"), second
    assert (await shell("session", "reset", "mill")).status == 0
    assert (await shell("session", "show", "mill")).out.splitlines()[1:] == []
    assert (await shell("session", "drop", "mill")).status == 0
    assert (await shell("session", "show", "mill")).status == 4
    await daemon.stop()


async def test_export_and_delete(start_daemon: StartDaemon, folders: Folders, village: Path) -> None:
    """A page in a file that is for its owner alone, a log on stdout; then the run is no more."""
    folders.write_config("")
    daemon = await start_daemon()
    shell = Shell(folders)
    await shell("ask", "-f", str(village / "fire.txt"), "Who burned <b>the mill</b>?")
    run_id = (await shell("run", "list")).out.split("\t")[0]
    page = village / "page.html"
    page.write_text("old")
    page.chmod(0o644)
    assert (await shell("run", "export", run_id, "-o", str(page))).status == 0
    assert page.stat().st_mode & 0o777 == 0o600
    assert "Who burned &lt;b&gt;the mill&lt;/b&gt;?" in page.read_text()
    lines = (await shell("run", "export", run_id[:6], "--format", "jsonl")).out.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["metadata", "iteration"]
    unwritten = await shell("run", "export", run_id, "-o", str(village / "none" / "page.html"))
    assert (unwritten.status, "cannot be written" in unwritten.err) == (2, True), unwritten
    assert (await shell("run", "delete", run_id)).status == 0
    assert (await shell("run", "show", run_id)).status == 4
    await daemon.stop()
