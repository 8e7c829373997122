"""The command ``rlmd``: reads the settings, then runs the daemon in the foreground.

The heavy imports come after the arguments are understood, so that ``--version`` and ``--check`` are quick.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlmd import __version__

if TYPE_CHECKING:
    from rlmd.config import Paths, Settings

EXIT_FAILED = 1
EXIT_RUNNING = 3
#: EX_CONFIG of sysexits.h; the unit file does not restart after it.
EXIT_CONFIG = 78

_EPILOG = """\
The settings are ~/.config/rlmd/config.toml and config.d/*.toml; XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME
and XDG_RUNTIME_DIR move the folders.

examples:
  rlmd                          serve at $XDG_RUNTIME_DIR/rlmd/rlmd.sock until Ctrl-C
  kill -HUP PID                 have it take changed settings (rlmctl daemon reload tells what came of it)
  rlmd --check                  look at Python, settings, folders and the unit, and stop
  rlmd --socket /tmp/a.sock     serve at another path
  systemctl --user enable --now rlmd.socket     start it when the first client connects

exit status:
  0 stopped when asked, or nothing wrong    2 wrong usage        78 the settings or folders are unusable
  1 something unexpected went wrong         3 another rlmd has this socket or state folder
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)
    from rlmd.config import Paths, check_settings

    paths = Paths.from_environment(socket=options.socket and options.socket.absolute())
    if options.check:
        return _check(paths)
    settings, problems = check_settings(paths)
    if settings is None:
        print(*(f"rlmd: {problem}" for problem in problems), sep="\n", file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    return _serve(paths, settings, until_eof=options.until_eof)


def _check(paths: Paths) -> int:
    from rlmd.soundness import of_folders, of_installation, of_settings

    settings, rest = of_settings(paths), [*of_installation(paths), *of_folders(paths)]
    for one in (*rest, *settings):
        stream = sys.stdout if one.ok else sys.stderr
        print(f"{'ok  ' if one.ok else 'FAIL'} {one.name}: {one.message}", file=stream)
        if one.hint and not one.ok:
            print(f"     {one.hint}", file=stream)
    return 0 if all(one.ok for one in (*rest, *settings)) else EXIT_CONFIG


def _serve(paths: Paths, settings: Settings, *, until_eof: bool) -> int:
    gc.disable()  # what is made from here to the first client stays for good; rlmd.daemon enables it then
    import uvloop

    from rlmd.daemon import run
    from rlmd.errors import ConfigInvalid, RlmdError
    from rlmd.logs import configure_logging
    from rlmd.ownprocess import allow_many_descriptors, keep_memory_out_of_core_dumps

    configure_logging(settings.log.level)
    keep_memory_out_of_core_dumps()
    allow_many_descriptors()
    os.chdir("/")  # whatever folder it was started in can still be unmounted; all our paths are absolute
    try:
        uvloop.run(run(paths, settings, until_eof=until_eof))
    except RlmdError as error:
        print(f"rlmd: {error.message} {error.hint}".rstrip(), file=sys.stderr)  # noqa: T201
        match error:
            case ConfigInvalid():
                return EXIT_CONFIG
            case _ if error.kind == "already_running":
                return EXIT_RUNNING
            case _:
                return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlmd",
        description="Answers questions over texts of any size, with citations; clients talk to it through a socket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--socket", type=Path, metavar="PATH", help="serve at this path")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    parser.add_argument("--check", action="store_true", help="look at Python, settings, folders and the unit, and stop")
    parser.add_argument("--version", action="version", version=f"rlmd {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
