"""Entry point of rlmctl: the version without loading anything else, all other commands by typer."""

from __future__ import annotations

import sys

from rlmd import __version__


def main() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"rlmctl {__version__}\n")
        return
    from rlmd.ctl.app import app

    app(prog_name="rlmctl")


if __name__ == "__main__":
    main()
