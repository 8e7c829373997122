"""``rlmctl setup`` as a person meets it: on a terminal, with real servers' manners, and with nobody there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import Paths, load_settings
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeModel, FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.harness import Daemon, Folders
from tests.shell import PATIENCE, Terminal, on_terminal, rlmctl

KEY = "sk-canary-0a1b2c3d4e5f"


@pytest.fixture
async def m40() -> AsyncIterator[FakeOllama]:
    models = [FakeModel("qwen2.5-coder:32b"), FakeModel("nomic-embed-text", capabilities=("embedding",))]
    async with FakeOllama(models, slots=2) as fake:
        fake.answer = lambda _: "The lamp."
        yield fake


def kept(folders: Folders) -> dict[str, bytes]:
    """Every file of the settings."""
    return {str(file): file.read_bytes() for file in folders.config.rglob("*") if file.is_file()}


def paths(folders: Folders) -> Paths:
    return Paths.from_environment(folders.environment())


async def answers(terminal: Terminal, *steps: tuple[str, str]) -> None:
    """Types each answer when its question is there."""
    seen = 0
    for question, answer in steps:
        seen = await terminal.wait_shown(question, after=seen)
        terminal.type(answer + "\n")


async def test_a_person_gets_from_nothing_to_an_answer(daemon: Daemon, folders: Folders, m40: FakeOllama) -> None:
    async with FakeOllama([FakeModel("llama3.3:70b", parameters="70.6B")]) as rtx:
        rtx.answer = lambda _: "The lamp."
        with on_terminal(folders.environment(), "setup") as terminal:
            await answers(
                terminal,
                ("Addresses of your model servers", f"http://x:99999 {m40.url}"),
                ("More of them", rtx.url),
                ("More of them", ""),
                ("cloud provider, for money", ""),
            )
            await terminal.wait_shown("Take what is proposed")
            assert "must look like http://name:port" in terminal.screen
            assert "embedding, not used" in terminal.screen
            terminal.type("tak\n")
            await answers(terminal, ("Write it?", "y"), ("Measure the new hosts now?", "y"))
            assert await terminal.wait_ended() == 0, terminal.screen
        assert "WRITES" in terminal.screen
        (question,) = re.findall(r'rlmctl ask -f (\S+) --exclude site-packages "(.*)"', terminal.screen)
        assert Path(question[0]).is_dir()
        settings = load_settings(paths(folders))
        assert settings.roles.root == ("local-2/llama3.3:70b", "local/qwen2.5-coder:32b")
        assert set(settings.hosts["local"].models) == {"qwen2.5-coder:32b"}
        text = (folders.config / "rlmd/config.d/setup.toml").read_text()
        assert "#   local-2/llama3.3:70b: chat, 70.6B, 8,192 tokens\n" in text
        assert text.count("# Where it listens") == 1
        asked = await rlmctl(
            folders.environment(), "ask", "--stdin", "--strategy", "direct", "What burned?", stdin=b"The lamp burned."
        )
        assert (asked.status, asked.out.splitlines()[0]) == (0, "The lamp."), asked.err


async def test_a_key_that_is_typed_is_in_its_file_and_nowhere_else(
    daemon: Daemon, folders: Folders, m40: FakeOllama
) -> None:
    async with FakeOpenAI(["deepseek-x"], dialect="deepseek", api_key=KEY) as cloud:
        with on_terminal(folders.environment(), "setup", m40.url) as terminal:
            await answers(
                terminal,
                ("cloud provider, for money", "y"),
                ("Which: deepseek", "depseek"),
                ("Did you mean deepseek?", "y"),
                ("Which: deepseek", cloud.url),
                ("get the key of", "paste"),
                ("not shown", "sk-wrong-" + KEY),
                ("Try another key?", "y"),
                ("get the key of", "p"),
                ("not shown", KEY),
                ("Which model", ""),
                ("What deepseek-x costs", "cheap"),
                ("Two numbers are needed", "0.15 0.60"),
                ("Another one?", "n"),
                ("Take what is proposed", ""),
                ("Dollars a day", "much"),
                ("is no sum of money", "0.5"),
                ("Dollars a month", "none"),
                ("Write it?", ""),
                ("Measure", "n"),
            )
            assert await terminal.wait_ended() == 0, terminal.screen
    settings = load_settings(paths(folders))
    host = settings.hosts["local-2"]
    assert host.api_key_file == str(folders.config / "rlmd/local-2.key")
    key = Path(host.api_key_file)
    assert (key.read_text(), key.stat().st_mode & 0o777) == (KEY + "\n", 0o600)
    price = host.models["deepseek-x"].price
    assert price is not None
    assert (price.prompt, price.completion) == (0.15, 0.60)
    assert (settings.budget.day, settings.budget.month) == (0.5, None)
    assert settings.roles.root[-1] == "local-2/deepseek-x"
    others = [file for file in folders.root.rglob("*") if file.is_file() and file != key]
    assert not [file for file in others if KEY.encode() in file.read_bytes()]
    assert KEY not in terminal.screen
    assert not list(folders.socket.parent.glob(".key*"))
    assert KEY not in daemon.stderr()


async def pressed_until_ended(terminal: Terminal, key: str) -> None:
    """As a person does: Python's readline shows the question, and waits for a key a moment later; a signal that comes
    between the two is seen with the next key only."""
    async with asyncio.timeout(PATIENCE):
        while not terminal.over:
            terminal.type(key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await terminal.wait_ended()


@pytest.mark.parametrize("at", ["Addresses of your model servers", "Take what is proposed", "Write it?"])
@pytest.mark.parametrize("with_what", ["\x03", "\x04"])
async def test_who_leaves_before_the_last_yes_has_changed_nothing(
    daemon: Daemon, folders: Folders, m40: FakeOllama, at: str, with_what: str
) -> None:
    folders.write_config("# mine\n[limits]\nturns = 7\n")
    before = kept(folders)
    steps = [
        ("Addresses of", m40.url),
        ("More of them", ""),
        ("cloud provider", ""),
        ("Take what", ""),
        ("Write it?", ""),
    ]
    with on_terminal(folders.environment(), "setup") as terminal:
        for question, answer in steps:
            await terminal.wait_shown(question)
            if question in at:
                await pressed_until_ended(terminal, with_what)
                break
            terminal.type(answer + "\n")
        assert await terminal.wait_ended() == 130, terminal.screen
    assert "Nothing was changed." in terminal.screen
    assert "Traceback" not in terminal.screen
    assert kept(folders) == before
    listed = await rlmctl(folders.environment(), "host", "list", "--json")
    assert m40.url not in listed.out


async def test_with_nobody_there_it_takes_what_it_proposes_or_says_why_not(
    daemon: Daemon, folders: Folders, m40: FakeOllama
) -> None:
    environment = folders.environment()
    unasked = await rlmctl(environment, "setup", m40.url)
    assert unasked.status == 2
    assert "--yes" in unasked.err
    shown = await rlmctl(environment, "setup", "--yes", m40.url, "--dry-run")
    assert shown.status == 0
    assert "[hosts.local]\n" in shown.out
    assert kept(folders) == {}
    keyless = await rlmctl(environment, "setup", "--yes", m40.url, "--cloud", "deepseek")
    assert keyless.status == 2
    assert "--key-file" in keyless.err
    done = await rlmctl(environment, "setup", "--yes", m40.url, "--day", "2")
    assert done.status == 0, done.err
    assert re.search(r"^qwen2\.5-coder:32b\t\d", done.out, flags=re.MULTILINE), done.out  # measured
    listed = json.loads((await rlmctl(environment, "host", "list", "--json")).out)["hosts"]
    assert [(host["name"], host["roles"], host["state"]) for host in listed] == [("local", ["root", "sub"], "ok")]
    assert load_settings(paths(folders)).budget.day == 2


async def test_what_cannot_be_set_up_is_told_and_changes_nothing(daemon: Daemon, folders: Folders) -> None:
    environment = folders.environment()
    key = folders.home / "key"
    key.write_text(KEY)
    async with (
        FakeOllama([FakeModel("embed", capabilities=("embedding",))]) as deaf,
        FakeOpenAI(api_key="other") as shut,
    ):
        cases = [
            (("127.0.0.1:1",), "refused the connection"),
            (("no-such-name.invalid",), "No machine is known by the name no-such-name.invalid."),
            (("http://user:secret@m40",), "holds a user name or password"),
            ((deaf.url,), "serves no model that chats"),
            ((shut.url,), "key"),
            (("--cloud", shut.url, "--key-file", str(key)), "key"),
            (("--cloud", shut.url, "--key-file", "/no/such/key"), "could not be read"),
            (("--cloud", shut.url, "--key-command", "false"), "gave no key"),
        ]  # fmt: skip
        for arguments, told in cases:
            ended = await rlmctl(environment, "setup", "--yes", *arguments)
            assert ended.status not in (0, 2), (arguments, ended)
            assert told in ended.err, (arguments, ended.err)
            assert KEY not in ended.err
            assert "secret" not in ended.err
            assert "Traceback" not in ended.err
    assert kept(folders) == {}


async def test_what_a_person_wrote_stays(start_daemon: StartDaemon, folders: Folders, m40: FakeOllama) -> None:
    mine = folders.write_config('# mine\n[roles]\nroot = ["own/big"]\n[hosts.own]\nurl = "http://127.0.0.1:1"\n'
                                'provider = "openai"\n[hosts.own.models.big]\n[budget]\nday = 3.0\n')  # fmt: skip
    await start_daemon()
    environment = folders.environment()
    before = mine.read_bytes()
    assert (await rlmctl(environment, "setup", "--yes", m40.url)).status == 0
    assert mine.read_bytes() == before
    settings = load_settings(paths(folders))
    assert settings.roles.root == ("own/big",)
    assert set(settings.hosts) == {"own", "local"}
    ours = folders.config / "rlmd/config.d/setup.toml"
    edited = ours.read_text().replace("window = 8192", "window = 6000\nuseful_window = 3000").replace(
        'provider = "ollama"', 'provider = "ollama"\nwatts = 250'
    )  # fmt: skip
    ours.write_text(edited + "\n[limits]\nturns = 9\n")
    again = await rlmctl(environment, "setup", "--yes", m40.url)
    assert again.status == 0, again.err
    settings = load_settings(paths(folders))
    model = settings.hosts["local"].models["qwen2.5-coder:32b"]
    assert (model.window, model.useful_window, settings.hosts["local"].watts) == (6000, 3000, 250)
    assert settings.limits.turns == 9
    assert "watts = 250" in (ours.parent / "setup.toml~").read_text()
    mine.write_text("[limits]\nturn = 9\n")
    broken = await rlmctl(environment, "setup", "--yes", m40.url)
    assert broken.status == 1
    assert f"{mine}: limits.turn is not known" in broken.err
