"""Makes docs/screen.svg and docs/emacs.svg: a real terminal on which rlmctl, and Emacs, ask Python's standard library.

    python docs/screen.py [--question "…"] [--library /usr/lib/python3.11] [--folder docs] [--only screen|emacs]

Needs tmux, Emacs, and rlmd installed beside the Python that runs this. Everything happens in folders of its own, with a
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
ASKED_IN_EMACS = "What happens to a child process that nobody waits for?"
COLUMNS, LINES = 100, 40
#: Of a character in the pictures that rich makes.
CELL_WIDTH = 12.2
HERE = Path(__file__).parent
#: Emacs without what is no part of the matter, light on dark as the terminal is. The answer gets the larger window.
BARE_EMACS = """(progn (menu-bar-mode -1) (setq frame-background-mode 'dark) (frame-set-background-mode nil)
(setq rlm-display-action '(display-buffer-below-selected (window-height . 22))))"""


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
        self.type(command)
        self._wait_for_prompt()

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def wait_for(self, words: str) -> None:
        while words not in self.tmux("capture-pane", "-p"):
            time.sleep(0.1)

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
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(
        r'x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)"([^>]*)>((?:&#160;)+)(?=[^<&]|&(?!#160))', _indented, svg
    )


def _indented(text: re.Match[str]) -> str:
    """Leading spaces as a place: not every viewer draws them."""
    x, y, length, rest, spaces = text.groups()
    shift = spaces.count(";") * CELL_WIDTH
    return f'x="{float(x) + shift:g}" y="{y}" textLength="{float(length) - shift:g}"{rest}>'


def ask_by_rlmctl(screen: Screen, options: argparse.Namespace) -> str:
    screen.run(f'rlmctl ask -f {shlex.quote(options.library)} "{options.question}"')
    return screen.picture()


def ask_in_emacs(screen: Screen, options: argparse.Namespace) -> str:
    """``M-x rlm-query`` on a file of the library, and ``M-g n`` to the first place that is quoted."""
    screen.run("clear; tmux clear-history")
    file = Path(options.library) / "subprocess.py"
    arguments = ["-nw", "-Q", "-L", str(HERE.parent / "elisp"), "-l", "rlm", "--eval", BARE_EMACS.replace("\n", " ")]
    screen.type(f"TERM=screen-256color emacs {shlex.join(arguments)} {file}")
    screen.wait_for("(Python")
    screen.tmux("send-keys", "M-x")
    screen.type("rlm-query")
    screen.wait_for("Ask of")
    screen.type(ASKED_IN_EMACS)
    screen.wait_for("M-g n shows")
    screen.tmux("send-keys", "M-g", "n")
    time.sleep(2)  # the quote pulses
    picture = screen.picture()
    screen.tmux("send-keys", "C-x", "C-c")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--library", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--only", choices=("screen", "emacs"))
    options = parser.parse_args()
    made = {"screen": ("rlmctl", ask_by_rlmctl), "emacs": ("Emacs", ask_in_emacs)}
    with tempfile.TemporaryDirectory(prefix="rlmd-", ignore_cleanup_errors=True) as name:
        screen = Screen(Path(name))
        try:
            for file, (title, ask) in made.items():
                if options.only in (None, file):
                    picture = ask(screen, options)
                    (options.folder / f"{file}.svg").write_text(svg_of(picture, title), encoding="utf-8")
                    sys.stdout.write(picture + "\n")
        finally:
            subprocess.run(["rlmctl", "daemon", "stop"], env={**screen.environment}, check=False)
            screen.close()


if __name__ == "__main__":
    main()
