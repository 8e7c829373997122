"""``rlmctl install`` and ``uninstall``: each file shown, one question, and exactly that taken away again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Folders
from tests.shell import on_terminal, rlmctl


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, every folder with None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def environment(folders: Folders) -> dict[str, str]:
    """A home as it is by default: nothing is moved by XDG, and no user manager runs."""
    kept = {"PATH", "LANG", "HOME", "XDG_RUNTIME_DIR"}
    return {name: value for name, value in folders.environment().items() if name in kept}


async def test_what_is_installed_is_taken_away_and_nothing_else(folders: Folders, environment: dict[str, str]) -> None:
    mine = folders.home / ".config" / "systemd" / "user" / "mine.service"
    mine.parent.mkdir(parents=True)
    mine.write_text("[Service]\n")
    (folders.home / "notes.txt").write_text("mine")
    before = tree(folders.home)
    done = await rlmctl(environment, "install", "--yes")
    assert done.status == 0, done.err
    written = [line.split()[1] for line in done.out.splitlines() if line.startswith("write ")]
    new = {str(folders.home / path) for path, content in tree(folders.home).items() if content is not None} - {
        str(folders.home / path) for path in before
    }
    assert new == {*written, str(folders.home / ".local/state/rlmd/installed.json")}
    assert str(folders.home / ".local/share/rlmd/elisp/rlm.el") in written
    again = await rlmctl(environment, "install", "--yes")
    assert again.status == 0, again.err
    gone = await rlmctl(environment, "uninstall", "--yes")
    assert gone.status == 0, gone.err
    left = tree(folders.home)
    del left[".local/state/rlmd"], left[".local/state"], left[".local"]  # of the daemon's own, which it would make
    assert left == before


async def test_what_somebody_changed_stays(folders: Folders, environment: dict[str, str]) -> None:
    await rlmctl(environment, "install", "--yes")
    unit = folders.home / ".config/systemd/user/rlmd.service"
    unit.write_text(unit.read_text() + "# mine\n")
    refused = await rlmctl(environment, "install", "--yes")
    assert refused.status == 1
    assert str(unit) in refused.err
    gone = await rlmctl(environment, "uninstall", "--yes")
    assert "was changed since and stays" in gone.err
    assert unit.exists()
    assert not (unit.parent / "rlmd.socket").exists()


async def test_nothing_is_done_without_a_yes(folders: Folders, environment: dict[str, str]) -> None:
    unasked = await rlmctl(environment, "install")
    assert unasked.status == 2
    assert "--yes" in unasked.err
    with on_terminal(environment, "install") as terminal:
        await terminal.wait_shown("Go on?")
        assert "rlmd.socket" in terminal.screen
        terminal.type("n\n")
        assert await terminal.wait_ended() == 130
    assert tree(folders.home) == {}


async def test_units_and_manual_are_clean_and_completion_works(folders: Folders, environment: dict[str, str]) -> None:
    await rlmctl(environment, "install", "--yes")
    units = folders.home / ".config/systemd/user"
    service = (units / "rlmd.service").read_text()
    assert f'ExecStart="{folders.home}/.local/share/rlmd/rlmd"\n' in service
    assert f'ExecReload="{folders.home}/.local/share/rlmd/rlmctl" daemon reload\n' in service
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--user", units / "rlmd.socket", units / "rlmd.service"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")
    page = folders.home / ".local/share/man/man1/rlmctl.1"
    if shutil.which("man"):
        shown = subprocess.run(
            ["man", "--warnings", "-l", str(page)], env={**environment, "MANWIDTH": "100", "TERM": "dumb"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "rlmctl context load" in shown.stdout
    script = folders.home / ".local/share/bash-completion/completions/rlmctl"
    asked = f'. {script}; COMP_WORDS=(rlmctl conte); COMP_CWORD=1; _rlmctl_completion rlmctl; echo "${{COMPREPLY[@]}}"'
    completed = subprocess.run(["bash", "-c", asked], env=environment, capture_output=True, text=True, check=False)
    assert completed.stdout.split() == ["context"], completed.stderr


def test_a_wheel_carries_units_and_elisp(tmp_path: Path) -> None:
    """Without the tests of either."""
    root = Path(__file__).resolve().parents[2]
    copy = tmp_path / "source"
    for name in ("rlmd", "elisp", "systemd", "pyproject.toml", "README.md", "LICENSE"):
        found = root / name
        shutil.copytree(found, copy / name) if found.is_dir() else shutil.copy(found, copy)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=copy, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    unpacked = tmp_path / "site"
    shutil.unpack_archive(wheel, unpacked, "zip")
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {"rlmd/share/systemd/rlmd.service", "rlmd/share/elisp/rlm.el", "rlmd/share/elisp/ob-rlm.el"} <= names
    assert not [name for name in names if "test/" in name or "/." in name]
    told = subprocess.run(
        [sys.executable, "-P", "-c", "from rlmd.ctl.shared import shared; print(shared('elisp'))"],
        env={**os.environ, "PYTHONPATH": str(unpacked)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == str(unpacked / "rlmd/share/elisp")


async def test_clients_configs_are_added_to_and_nothing_of_them_is_lost(
    folders: Folders, environment: dict[str, str]
) -> None:
    opencode = folders.home / ".config/opencode/opencode.json"
    opencode.parent.mkdir(parents=True)
    opencode.write_text('{"model": "deepseek/deepseek-chat", "mcp": {"other": {"type": "local"}}}')
    shown = await rlmctl(environment, "install", "opencode")
    assert shown.status == 0, shown.err
    assert '"rlmd"' in shown.out
    assert "deepseek" not in shown.out
    assert "rlmd" not in opencode.read_text()
    assert (await rlmctl(environment, "install", "opencode", "--write")).status == 0
    config = json.loads(opencode.read_text())
    assert config["model"] == "deepseek/deepseek-chat"
    assert set(config["mcp"]) == {"other", "rlmd"}
    assert config["mcp"]["rlmd"]["command"][0] == sys.executable
    assert (opencode.parent / "agents" / "rlm.md").read_text().startswith("---\ndescription: ")
    assert (await rlmctl(environment, "install", "claude", "--write")).status == 0
    claude = json.loads((folders.home / ".claude.json").read_text())
    assert claude["mcpServers"]["rlmd"]["args"][-1] == "mcp"
    assert (folders.home / ".claude/skills/rlm/SKILL.md").exists()
    opencode.write_text("{ // a comment\n}")
    broken = await rlmctl(environment, "install", "opencode", "--write")
    assert broken.status == 1
    assert "by hand" in broken.err
    assert opencode.read_text() == "{ // a comment\n}"
