"""``rlmctl install`` and ``uninstall``: units, completions, manual page and elisp for one user, and nothing else."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlmd.ctl.exits import Exit
from rlmd.ctl.running import leave

if TYPE_CHECKING:
    from rlmd.ctl.terminal import Output

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
#: Seconds that systemd has for one request.
_PATIENCE = 60.0


def register(app: typer.Typer) -> None:
    app.command("install")(install)
    app.command("uninstall")(uninstall)


def install(
    what: Annotated[
        Literal["desk", "opencode", "claude"],
        typer.Argument(help="desk: units, completions, manual, elisp. opencode, claude: rlmd as their tools."),
    ] = "desk",
    yes: Yes = False,
    linger: Annotated[
        bool, typer.Option("--linger", help="desk: rlmd goes on while you are logged out (loginctl enable-linger).")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="opencode, claude: write it; without this it is only printed.")
    ] = False,
) -> None:
    """Install rlmd for yourself: shows each file and asks once. `uninstall` removes exactly that."""
    if what == "desk":
        _install_desk(yes, linger)
    else:
        _install_client(what, write)


def _install_client(what: Literal["opencode", "claude"], write: bool) -> None:
    """Prints what the client needs, or puts it there."""

    def work(output: Output) -> None:
        from rlmd.ctl.clients import additions, apply

        found = additions(what)
        if write:
            for path in apply(found):
                output.remark(f"{path} is written", None)
            return
        for addition in found:
            output.print(f"# {addition.path}")
            output.print(addition.shown.rstrip("\n"))
        output.remark("Nothing was written: --write does it.", None)

    leave(work)


def _install_desk(yes: bool, linger: bool) -> None:
    def work(output: Output) -> Exit:
        from rlmd.config import Paths
        from rlmd.ctl.installing import Homes, foreign, planned, read_manifest, write
        from rlmd.errors import Conflict

        homes = Homes.of(Paths.from_environment())
        known = read_manifest(homes.manifest)
        files = planned(homes, *_generated())
        if theirs := foreign(files, known):
            listed = ", ".join(map(str, theirs))
            raise Conflict(f"There already: {listed}.", hint="They are not of rlmctl install. Put them aside first.")
        _tell_plan(output, files, linger=linger)
        if not (yes or _agreed()):
            output.remark("Nothing was done.", None)
            return Exit.CANCELLED
        newly = linger and not _lingers()
        write(files, homes, known, linger=newly)
        _enable(output)
        if newly:
            _told("loginctl", "enable-linger")
        elisp = homes.data / "rlmd" / "elisp"
        output.print(f"For Emacs, in your init file: (add-to-list 'load-path \"{elisp}\") (require 'rlm)")
        return Exit.DONE

    leave(work)


def uninstall(yes: Yes = False) -> None:
    """Remove what `rlmctl install` wrote, and nothing else. Contexts, answers, settings and your own files stay."""

    def work(output: Output) -> Exit:
        from rlmd.config import Paths
        from rlmd.ctl.installing import Homes, read_manifest, remove

        homes = Homes.of(Paths.from_environment())
        known = read_manifest(homes.manifest)
        if not known.files:
            output.remark("Nothing is installed.", None)
            return Exit.DONE
        for name in known.files:
            output.print(f"remove {name}")
        if not (yes or _agreed()):
            output.remark("Nothing was done.", None)
            return Exit.CANCELLED
        if _has_manager():
            _told("systemctl", "--user", "disable", "--now", "rlmd.socket")
            _told("systemctl", "--user", "stop", "rlmd.service")
        if known.linger:
            _told("loginctl", "disable-linger")
        _, kept = remove(known, homes.manifest)
        if _has_manager():
            _told("systemctl", "--user", "daemon-reload")
        for path in kept:
            output.remark(f"{path} was changed since and stays", "yellow")
        return Exit.DONE

    leave(work)


def _generated() -> tuple[dict[str, str], str]:
    """Completion scripts by shell, and the manual page."""
    from rlmd.ctl.app import app
    from rlmd.ctl.manual import manual

    return {shell: _completion(shell) for shell in ("bash", "zsh", "fish")}, manual(app)


def _completion(shell: str) -> str:
    """The script of a shell, as rlmctl itself gives it when it is asked by the variable of typer's protocol."""
    environment = {**os.environ, "_RLMCTL_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-P", "-c", "from rlmd.ctl.app import app; app(prog_name='rlmctl')"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def _tell_plan(output: Output, files: dict[Path, bytes], *, linger: bool) -> None:
    from rlmd.ctl.terminal import size

    for path, content in files.items():
        output.print(f"write {path} ({size(len(content))})")
    if _has_manager():
        output.print("run   systemctl --user daemon-reload && systemctl --user enable --now rlmd.socket")
    if linger:
        output.print("run   loginctl enable-linger: rlmd goes on while you are logged out")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        from rlmd.errors import InvalidParams

        raise InvalidParams("There is nobody to ask.", hint="Say --yes if this is what you want.")
    return typer.confirm("Go on?", default=False)


def _enable(output: Output) -> None:
    """A daemon that runs by itself gives way to systemd's."""
    if not _has_manager():
        output.remark("No systemd user manager runs here: rlmctl starts the daemon when it is needed.", None)
        return
    _told("systemctl", "--user", "daemon-reload")
    failed = _told("systemctl", "--user", "enable", "--now", "rlmd.socket")
    if failed is not None:
        output.remark(f"systemd does not start rlmd.socket: {failed}", "yellow")


def _has_manager() -> bool:
    return (
        shutil.which("systemctl") is not None
        and (Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "systemd").is_dir()
    )


def _lingers() -> bool:
    return Path("/var/lib/systemd/linger", getpass.getuser()).exists()


def _told(*command: str) -> str | None:
    """None when the command did it, else what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()
