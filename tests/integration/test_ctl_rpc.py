"""The short ways of rlmctl: any method by its name, one prompt to a sub-model, a daemon for one question."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes.ollama import FakeOllama
from tests.harness import Client, Daemon, Folders, Host, config_of, marked
from tests.shell import rlmctl


async def test_any_method_is_called_by_its_name(folders: Folders, daemon: Daemon) -> None:
    environment = folders.environment()
    params = json.dumps({"name": "a", "source": {"kind": "inline", "text": "über"}})
    loaded = await rlmctl(environment, "rpc", "context/load", "-", stdin=params.encode())
    assert json.loads(loaded.out)["context"]["chars"] == 4, loaded.err
    peeked = await rlmctl(environment, "rpc", "context/peek", '{"name": "a"}')
    assert json.loads(peeked.out)["text"] == "über"
    listed = await rlmctl(environment, "rpc")
    assert "context/peek " in listed.out
    for arguments, status, said in (
        (("rpc", "context/peek", '{"name": "b"}'), 4, "context list"),
        (("rpc", "context/pek"), 1, "context peek"),
        (("rpc", "context/peek", "{"), 2, "no JSON"),
        (("rpc", "context/peek", "[]"), 2, "JSON object"),
    ):
        ended = await rlmctl(environment, *arguments)
        assert ended.status == status, ended.err
        assert said in ended.err


async def test_a_prompt_goes_to_a_sub_model(folders: Folders, client: Client) -> None:
    async with FakeOllama() as model:
        model.answer = lambda prompt: f"re: {prompt}"
        await client.call("host/add", {"name": "m40", "url": model.url})
        asked = await rlmctl(folders.environment(), "query", "hello")
        assert (asked.status, asked.out) == (0, "re: hello\n"), asked.err
        piped = await rlmctl(folders.environment(), "query", "-", "--json", stdin=b"hello")
        assert json.loads(piped.out)["source"] == "cache"
        assert len(model.seen) == 1


async def test_a_daemon_for_one_question_ends_with_it(folders: Folders, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("The boiler stands in the cellar.\n")
    ended = await rlmctl(folders.environment(), "ask", "--no-daemon", "-f", str(text), "where is the boiler?")
    assert ended.status == 0, ended.err
    assert "The boiler stands in the cellar." in ended.out
    assert list(marked(folders)) == []


async def test_it_is_asked_of_the_daemon_that_runs_instead(folders: Folders, daemon: Daemon) -> None:
    ended = await rlmctl(folders.environment(), "ask", "--no-daemon", "--stdin", "q", stdin=b"text")
    assert ended.status == 1
    assert "leave out --no-daemon" in ended.err


async def test_such_a_daemon_has_the_config_and_the_budget(folders: Folders, tmp_path: Path) -> None:
    async with FakeOllama(["root"]) as model:
        model.answer = lambda _: "In the cellar."
        host = Host("m40", model.url, models={"root": 32_768})
        folders.write_config(config_of([host], root=("m40/root",), sub=("m40/root",)))
        text = b"The boiler stands in the cellar.\n"
        ended = await rlmctl(folders.environment(), "ask", "--no-daemon", "--stdin", "where?", stdin=text)
        assert (ended.status, ended.out) == (0, "In the cellar.\n"), ended.err
    assert (folders.state / "rlmd" / "ledger.sqlite").exists()
