"""Every command of README.md and docs/*.md: typed as it stands, page by page, in a home of its own.

The reader's hosts are fakes at other addresses, and what is the reader's own (a log, a mailbox, a key) is made up. A
command that is not run is named here, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlmd.config import Settings
from tests.conftest import StartDaemon
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.harness import ROOT, Folders, Host, config_of, load_path

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
#: What the reader's machine has and a test's has not, or has otherwise: program → what it does.
PROGRAMS = {
    "journalctl": "echo 'systemd[1]: mill.service: Failed with result exit-code.'",
    "gpg": "echo 'Dear reader, you owe me an answer.'",
    "loginctl": "exit 0",
}
#: Beginning of a command → what is typed instead, or why nothing is.
INSTEAD = {
    "rlmctl install": "rlmctl install --yes",
    "~/.local/share/rlmd/venv/bin/rlmctl install": "~/.local/share/rlmd/venv/bin/rlmctl install --yes",
}
NOT_RUN = {
    "v=~/.local/share/rlmd/venv": "it installs; test_readme types it",
    "tests/run": "it runs this test",
    "rlmctl setup": "it asks, and finds hosts by their names; test_ctl_setup has both",
    "rlmctl eval": "hours of models' work; test_evaluation runs it on texts of a test's size",
}
#: What a model of a fake host says to anything.
REPLY = "FINAL(It is so.)"


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks that are run; a line that ends in an operator goes on in the next."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    kept = [line for line in lines if not any(line.startswith(start) for start in NOT_RUN)]
    return [INSTEAD.get(line.partition("  #")[0].strip(), line) for line in kept]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@contextlib.asynccontextmanager
async def hosts() -> AsyncIterator[dict[str, str]]:
    """Address in the docs → address of a fake."""
    async with (
        FakeOllama(["qwen2.5-coder:32b"]) as m40,
        FakeOpenAI(["llama3.3:70b"], dialect="llama.cpp") as rtx,
        FakeOpenAI(["deepseek-chat"], dialect="deepseek") as deepseek,
        FakeOpenAI(["vendor/model"]) as router,
        FakeAnthropic(["claude-haiku-5-5"]) as claude,
    ):
        fakes = (m40, rtx, deepseek, router, claude)
        for fake in fakes:
            fake.answer = lambda _: REPLY
        addresses = ("http://m40:11434", "http://rtx:8080", "https://api.deepseek.com", "https://openrouter.ai/api/v1",
                     "https://api.anthropic.com")  # fmt: skip
        yield {address: fake.url for address, fake in zip(addresses, fakes, strict=True)}


def make_a_home(folders: Folders) -> None:
    """What the docs take for granted."""
    home = folders.home
    files = {
        "src/linux/Documentation/locking.rst": "rtnl_lock may be held by whoever changes links, for a moment.\n",
        "src/app/main.py": "import socket\nlistener = socket.socket()  # the socket is opened here\n",
        "src/cpython/Lib/os.py": "def name(): return 1\n",
        "mail/inbox": "From ann@example.org\nSubject: the mill\n\nI still wait for an answer.\n",
        "letters.gpg": "-----BEGIN PGP MESSAGE-----\n",
        "questions.jsonl": json.dumps({"question": "Who may hold rtnl_lock?"}) + "\n",
        "boot.log": "systemd[1]: mill.service: Failed with result exit-code.\n",
        ".local/share/rlmd/venv/bin/rlmctl": '#!/bin/sh\nexec rlmctl "$@"\n',
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / ".local/share/rlmd/venv/bin/rlmctl").chmod(0o755)
    for name, does in PROGRAMS.items():
        program = home / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    for name in ("deepseek", "anthropic", "openrouter"):
        key = folders.config / "rlmd" / f"{name}.key"
        key.parent.mkdir(exist_ok=True)
        key.write_text(f"sk-{name}\n")
        key.chmod(0o600)
    (home / ".config").symlink_to(folders.config)


def test_what_is_not_run_is_there_and_little() -> None:
    every = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    for start in (*NOT_RUN, *INSTEAD):
        assert any(line.startswith(start) for line in every), start
    assert len(NOT_RUN) <= 4
    assert len(WITH_COMMANDS) >= 8
    languages = {
        language for page in PAGES for language in re.findall(r"^```(\w+)$", page.read_text(), flags=re.MULTILINE)
    }
    assert languages <= {"sh", "toml", "ini", "python", "json", "org", "elisp"}, "commands stand in sh blocks"


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
async def test_every_command_of_the_page_works(folders: Folders, start_daemon: StartDaemon, page: Path) -> None:
    make_a_home(folders)
    environment = folders.environment()
    environment["PATH"] = f"{folders.home}/bin:{environment['PATH']}"
    script = "\n".join(commands(page))
    async with hosts() as addresses:
        if "rlmctl host add m40" not in script:
            model = "qwen2.5-coder:32b"
            m40 = Host("m40", addresses["http://m40:11434"], models={model: 32_768})
            folders.write_config(config_of([m40], root=(f"m40/{model}",), sub=(f"m40/{model}",)))
        daemon = await start_daemon(PATH=environment["PATH"])
        async with daemon.connect() as client:
            for name in ("linux", "topics"):
                if f"--name {name}" not in script:
                    await load_path(client, name, folders.home / "src/linux")
        for told, real in addresses.items():
            script = script.replace(told, real)
        shell = await asyncio.create_subprocess_exec(
            "sh", "-ex", "-c", script, env=environment, cwd=folders.home,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await shell.communicate()
    print(out.decode())
    assert shell.returncode == 0, out.decode()[-3000:]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: page.stem)
def test_every_setting_of_the_page_is_one(page: Path) -> None:
    """Blocks may leave out what another file has, but name nothing that is not there."""
    for block in blocks(page, "toml"):
        try:
            Settings.model_validate(tomllib.loads(block))
        except ValidationError as error:
            wrong = [one for one in error.errors() if one["type"] != "missing"]
            assert not wrong, block


def test_links_lead_somewhere() -> None:
    """Files, and headings within them."""
    for page in PAGES:
        for target, _, heading in (
            found.partition("#") for found in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text())
        ):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            if heading and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
                assert heading in map(anchor, headings), f"{page.name}: {target}#{heading}"


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
