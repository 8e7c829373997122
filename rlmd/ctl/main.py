"""Entry point of rlmctl: the version without loading anything else, all other commands by typer."""

from __future__ import annotations

import os
import sys

from rlmd import __version__


def main() -> None:
    _have_streams()
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"rlmctl {__version__}\n")
        return
    from rlmd.ctl.app import app

    app(prog_name="rlmctl")


def _have_streams() -> None:
    """A standard stream that whoever started this closed is one that leads nowhere: else Python has none, and the
    descriptor would be taken by the next socket."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  as long as we live


if __name__ == "__main__":
    main()
