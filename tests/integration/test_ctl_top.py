"""``rlmctl top`` on a terminal: what it shows, where there is little room, and while the daemon goes and comes."""

from __future__ import annotations

from rlmd.ctl.commands.top import HEADER, columns_in
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Folders, Host, config_of
from tests.shell import on_terminal, rlmctl


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    rows = [("m40", "busy", "2/2", "54", "10", "0", "31.4", "2.03 s", "0.70", "0.0002", "0.0123", "qwen2.5-coder:32b")]
    assert [HEADER[number] for number in columns_in(130, rows)] == list(HEADER)
    assert [HEADER[number] for number in columns_in(66, rows)] == [
        "HOST", "STATE", "SLOTS", "QUEUED", "TOK/S", "WH", "$", "IN MEMORY",
    ]  # fmt: skip
    assert [HEADER[number] for number in columns_in(10, rows)] == ["HOST", "STATE", "SLOTS", "$"]
    assert columns_in(80, []) == list(range(len(HEADER)))


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
