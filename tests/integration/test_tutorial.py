"""The tutorial: each of its commands, in its order, in one shell, as a reader types them."""

from __future__ import annotations

import asyncio
import itertools
import re

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import ROOT, Folders

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
ADDRESS = "http://m40:11434"


async def test_every_command_of_the_tutorial_works(folders: Folders, start_daemon: StartDaemon) -> None:
    """``-e`` ends the shell at the first that fails. The address of the reader's host is the fake's."""
    turns = itertools.cycle(["```repl\nprint(search('__set_name__', 2))\n```", "FINAL(When the class is made.)"])
    async with FakeOllama(["root"]) as model:
        model.answer = lambda _: next(turns)
        await start_daemon()
        script = "".join(BLOCKS)
        assert ADDRESS in script
        shell = await asyncio.create_subprocess_exec(
            "sh", "-ex", "-c", script.replace(ADDRESS, model.url), env=folders.environment(), cwd=folders.home,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await shell.communicate()
    assert shell.returncode == 0, err.decode()
    assert out.decode().count("When the class is made.") == 1
    assert '"answer": "When the class is made."' in (folders.home / "rlm-tutorial" / "answers.jsonl").read_text()
