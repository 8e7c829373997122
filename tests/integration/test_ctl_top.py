"""``rlmctl top`` on a terminal: what it shows, where there is little room, and while the daemon goes and comes."""

from __future__ import annotations

from rlmd.ctl.commands.top import HEADER, columns_in
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Folders, Host, config_of, load_text, new_run
from tests.shell import on_terminal, rlmctl


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    rows = [("m40", "busy", "2/2", "54", "10", "0", "31.4", "2.03 s", "0.70", "0.0002", "0.0123", "qwen2.5-coder:32b")]
    assert [HEADER[number] for number in columns_in(130, rows)] == list(HEADER)
    assert [HEADER[number] for number in columns_in(66, rows)] == [
        "HOST", "STATE", "SLOTS", "QUEUED", "TOK/S", "WH", "$", "IN MEMORY",
    ]  # fmt: skip
    assert [HEADER[number] for number in columns_in(10, rows)] == ["HOST", "STATE", "SLOTS", "$"]
    assert columns_in(80, []) == list(range(len(HEADER)))


async def test_a_model_that_changes_places_is_seen_loading(folders: Folders, start_daemon: StartDaemon) -> None:
    """While it loads; and no more when it has said a word."""
    environment = folders.environment()
    async with FakeOllama(["one", "other"], most_loaded=1, load_seconds=600.0) as model:
        model.loaded["one:latest"] = 8192
        folders.write_config(config_of([Host("m40", model.url, models={"one": 8192, "other": 8192})]))
        daemon = await start_daemon()
        with on_terminal(environment, "top", "--seconds", "0.2") as terminal:
            await terminal.wait_shown("one:latest")
            async with daemon.connect() as client:
                params = new_run("Why?", strategy="direct") | {"root": ["m40/other"]}
                await load_text(client, "note", "a text")
                await client.call("run/start", params | {"contexts": ["note"]})
                await terminal.wait_shown("one:latest, other (loading)")
                await terminal.wait_shown("m40   loading")
                await client.call("run/cancel", {"run_id": params["run_id"], "why": "enough"})
            terminal.type("\x03")
            assert await terminal.wait_ended() == 130


async def test_it_goes_on_while_the_daemon_goes_and_comes(folders: Folders, start_daemon: StartDaemon) -> None:
    """It shows why a host is down; it never starts a daemon, but finds one that was started."""
    environment = folders.environment()
    assert (await rlmctl(environment, "top", "--once")).status == 5
    async with FakeOllama(["root"]) as model:
        gone = Host("p100", "http://127.0.0.1:9", models={"root": 8192})
        folders.write_config(config_of([Host("m40", model.url, models={"root": 8192}), gone]))
        first = await start_daemon()
        with on_terminal(environment, "top", "--seconds", "0.2") as terminal:
            await terminal.wait_shown("m40")
            await terminal.wait_shown("nothing asked yet")
            await terminal.wait_shown("p100: ")
            await first.stop()
            await terminal.wait_shown("No daemon runs")
            assert not folders.socket.exists()
            before = len(terminal.screen)
            await start_daemon()
            await terminal.wait_shown_after(before, "m40")
            terminal.type("\x03")
            assert await terminal.wait_ended() == 130
