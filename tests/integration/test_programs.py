"""Programs of the user through rlmctl and a real daemon: listed, chosen by name, run in the cage, clear when wrong."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted
from tests.harness import Daemon, Folders, Host, RpcFailure, config_of
from tests.shell import Ended, rlmctl

SHOUT = '''"""Asks each document for its mood, and lists the moods.

More of it.
"""

from __future__ import annotations

moods = llm_query_batched([d + "\\n\\n" + question for d in documents])
FINAL("\\n".join(f"{d.name}: {mood}" for d, mood in zip(documents, moods)))
'''


@pytest.fixture
async def fake(folders: Folders) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        folders.write_config(
            config_of([Host("box", server.url, 4, {"root": 8192, "sub": 8192})], ("box/root",), ("box/sub",))
        )
        yield server


@pytest.fixture
def texts(folders: Folders) -> Path:
    folder = folders.home / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("The lamp is lit.\n")
    (folder / "b.txt").write_text("The lamp is dark.\n")
    return folder


def program(folders: Folders, text: str, name: str = "moods") -> Path:
    return folders.write_config(text, f"programs/{name}.py")


async def asked(folders: Folders, texts: Path, *arguments: str) -> Ended:
    return await rlmctl(folders.environment(), "ask", "-f", str(texts), "--strategy", "moods", *arguments, "What mood?")


async def test_a_program_answers_and_an_edit_counts_at_once(
    folders: Folders, fake: FakeOllama, texts: Path, daemon: Daemon
) -> None:
    program(folders, SHOUT)
    fake.answer = lambda prompt: "bright" if "lit" in prompt else "gloomy"
    ended = await asked(folders, texts, "--json")
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert result["answer"] == "a.txt: bright\nb.txt: gloomy"
    assert result["run"]["strategy"] == "moods"
    assert result["receipt"]["sub_queries"] == 2
    assert sorted(fake.prompts("sub")) == ["The lamp is dark.\n\n\nWhat mood?", "The lamp is lit.\n\n\nWhat mood?"]
    assert fake.prompts("root") == [], "no root takes part"
    program(folders, 'FINAL(f"{len(documents)} {piece_chars > 1000} {question}")\n')
    assert (await asked(folders, texts)).out.startswith("2 True What mood?\n")


async def test_a_program_needs_no_model_and_stays_in_its_cage(folders: Folders, texts: Path, daemon: Daemon) -> None:
    program(
        folders,
        "try:\n    open('/etc/passwd', 'w')\nexcept OSError as error:\n    said = 'sealed'\n"
        "answer['content'] = said + ' ' + grep('dark')[0]\n",
    )
    ended = await asked(folders, texts)
    assert (ended.status, ended.out.splitlines()[0]) == (0, "sealed The lamp is dark."), ended.err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        ("def f():\n    return missing\n\n\nf()\n", "NameError: name 'missing' is not defined (line 2)"),
        ("x = 1\n", "it ended without an answer: end it with FINAL(text)"),
        ("x = 1\nFINAL('')\n", "ValueError: FINAL: "),
    ],
)
async def test_a_program_that_fails_says_where(
    folders: Folders, texts: Path, daemon: Daemon, text: str, why: str
) -> None:
    program(folders, text)
    ended = await asked(folders, texts)
    assert ended.status == 3
    assert f"The program moods failed: {why}" in ended.out + ended.err


async def test_what_was_found_before_a_failure_is_told(folders: Folders, texts: Path, daemon: Daemon) -> None:
    program(folders, "answer['content'] = 'half of it'\n1 / 0\n")
    ended = await asked(folders, texts, "--json")
    result = json.loads(ended.out)
    assert (ended.status, result["answer"], result["run"]["outcome"]) == (3, "half of it", "partial")


async def test_what_is_no_program_is_refused_before_anything_runs(
    folders: Folders, texts: Path, daemon: Daemon
) -> None:
    """A name that there is not, a file that is no Python: what is wrong, and what there is."""
    unknown = await asked(folders, texts)
    assert unknown.status == 2
    assert "There is no strategy 'moods'" in unknown.err
    assert "auto, direct, rlm, map, quote" in unknown.err
    assert str(folders.config / "rlmd" / "programs") in unknown.err
    program(folders, "x = 1\nif x\n    pass\n")
    broken = await asked(folders, texts)
    assert broken.status == 1
    assert "moods.py: line 2: expected ':'" in broken.err
    runs = await rlmctl(folders.environment(), "run", "list", "--json")
    assert json.loads(runs.out)["runs"] == []


async def test_programs_are_listed_with_what_is_wrong(folders: Folders, daemon: Daemon) -> None:
    empty = await rlmctl(folders.environment(), "program", "list")
    assert (empty.status, empty.out) == (0, "")
    assert "NAME.py" in empty.err
    program(folders, SHOUT)
    program(folders, "await llm_query_async('x')\n", "waits")
    program(folders, "FINAL(1)\n", "map")
    program(folders, "FINAL(1)\n", "Loud Name")
    program(folders, "def\n", "broken")
    (folders.config / "rlmd" / "programs" / "binary.py").write_bytes(b"\xff\xfe")
    listed = await rlmctl(folders.environment(), "program", "list", "--json")
    found = {one["name"]: (one["summary"], one["problem"]) for one in json.loads(listed.out)["programs"]}
    assert found["moods"] == ("Asks each document for its mood, and lists the moods.", None)
    assert found["waits"] == ("", None)
    assert "another name" in found["map"][1]
    assert "small letters" in found["Loud Name"][1]
    assert "line 1" in found["broken"][1]
    assert "UTF-8" in found["binary"][1]


@pytest.mark.parametrize("strategy", ["execute", "open", "../config", "a" * 65, "Map", ""])
async def test_other_names_reach_no_file(folders: Folders, daemon: Daemon, strategy: str) -> None:
    async with daemon.connect() as client:
        await client.call("context/load", {"name": "t", "source": {"kind": "inline", "text": "x"}})
        with pytest.raises(RpcFailure) as refused:
            await client.call(
                "run/ask", {"run_id": str(uuid.uuid4()), "question": "?", "contexts": ["t"], "strategy": strategy}
            )
        assert refused.value.data["kind"] == "invalid_params"


async def test_a_program_that_a_crash_cut_short_goes_on_as_it_was(
    folders: Folders, fake: FakeOllama, texts: Path, start_daemon: StartDaemon
) -> None:
    """Its text is in the journal: what the file says by then, and whether it is still there, is no matter."""
    file = program(folders, SHOUT)
    held = asyncio.Event()
    fake.answer = lambda prompt: "bright" if "lit" in prompt else Scripted("gloomy", until=held)
    daemon = await start_daemon()
    run = str(uuid.uuid4())
    async with daemon.connect() as client:
        await client.call("context/load", {"name": "t", "source": {"kind": "path", "paths": [str(texts)]}})
        await client.call(
            "run/start", {"run_id": run, "question": "What mood?", "contexts": ["t"], "strategy": "moods"}
        )
        await client.until(lambda: client.facts(run, "subquery_replied"))
    await daemon.stop(signal.SIGKILL)
    file.unlink()
    held.set()
    before = len(fake.prompts("sub"))
    again = await start_daemon()
    async with again.connect() as client:
        await client.call("run/attach", {"run_id": run})
        ended = await client.ended_run(run)
    assert ended["answer"]["text"] == "a.txt: bright\nb.txt: gloomy"
    assert [prompt for prompt in fake.prompts("sub")[before:] if "lit" in prompt] == [], "no reply is asked for again"
