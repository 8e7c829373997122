"""Makes docs/screen.svg: a real terminal on which rlmctl asks Python's standard library, as it is.

    python docs/screen.py [--question "…"] [--library /usr/lib/python3.11] [--target FILE]

Needs tmux, and rlmd installed beside the Python that runs this. Everything happens in folders of its own, with a
daemon of its own that is stopped at the end.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

QUESTION = "How does Python avoid zombie processes?"
COLUMNS, LINES = 100, 40
TARGET = Path(__file__).with_name("screen.svg")


class Screen:
    """A tmux server of its own with one window."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")
        bin_folder = Path(sys.executable).parent
        self.environment = {
            "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "PS1": "$ ",
            **{
                f"XDG_{name}": str(folder / name) for name in ("RUNTIME_DIR", "STATE_HOME", "CACHE_HOME", "CONFIG_HOME")
            },
        }
        Path(self.environment["XDG_RUNTIME_DIR"]).mkdir(mode=0o700)
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "bash", "--norc", "--noprofile")
        self._wait_for_prompt()

    def tmux(self, *command: str) -> str:
        ran = subprocess.run(
            ["tmux", "-S", self._socket, *command],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return ran.stdout

    def run(self, command: str) -> None:
        """Types a command and waits until it has ended."""
        self.tmux("send-keys", "-l", command)
        self.tmux("send-keys", "Enter")
        self._wait_for_prompt()

    def _wait_for_prompt(self) -> None:
        while self.tmux("capture-pane", "-p").rstrip().rpartition("\n")[2].rstrip() != "$":
            time.sleep(0.1)

    def picture(self) -> str:
        """What is on the screen, with its colours, without the last prompt."""
        lines = self.tmux("capture-pane", "-e", "-p", "-S", "-").rstrip().splitlines()
        while lines and re.sub(r"\x1b\[[\d;]*m", "", lines[-1]).strip() in ("$", ""):
            lines.pop()
        return "\n".join(lines)

    def close(self) -> None:
        self.tmux("kill-server")


def svg_of(screen: str, title: str) -> str:
    """The screen as SVG by rich; without the fonts that rich would fetch from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen))
    svg = console.export_svg(title=title, unique_id="rlmctl")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--library", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlmd-", ignore_cleanup_errors=True) as name:
        screen = Screen(Path(name))
        try:
            screen.run(f'rlmctl ask -f {shlex.quote(options.library)} "{options.question}"')
            picture = screen.picture()
        finally:
            subprocess.run(["rlmctl", "daemon", "stop"], env={**screen.environment}, check=False)
            screen.close()
    options.target.write_text(svg_of(picture, "rlmctl"), encoding="utf-8")
    sys.stdout.write(picture + "\n")


if __name__ == "__main__":
    main()
