"""Emacs in a terminal, used as a person does: keys are typed, the screen is read.

Emacs starts the daemon itself. The models are a scripted server; everything else is real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a screen is taken never to come.
PATIENCE = 60
COLUMNS, LINES = 110, 40

pytestmark = pytest.mark.timeout(240)

SLOW = {
    "text": "Slowly it is told: " + " ".join(map(str, range(250))) + " and that is all.",
    "chunk": 12,
    "pause": 0.03,
}
QUOTED = "It lies here:\n\n> the quick brown NEEDLE lies\n\nThis is **all** that is known.\n"
WORK = [
    "I look first.\n```repl\nreplies = llm_query_batched([f'piece {i}' for i in range(4)])\nprint(len(replies))\n```",
    "```repl\nresult = 'four pieces'\n```\nFINAL_VAR(result)",
]

INIT = """
(add-to-list 'load-path {elisp!r})
(dolist (folder (file-expand-wildcards "/usr/share/emacs/site-lisp/elpa/*-[0-9]*")) (add-to-list 'load-path folder))
(require 'rlm)
(autoload 'magit-status "magit" nil t)
(setq rlm-auto-start 'direct inhibit-startup-screen t make-backup-files nil auto-save-default nil
      kill-buffer-query-functions nil confirm-kill-processes nil org-confirm-babel-evaluate nil)
(global-set-key (kbd "C-c q") #'rlm-query)
(menu-bar-mode -1)
(with-eval-after-load 'org (org-babel-do-load-languages 'org-babel-load-languages '((rlm . t))))
"""


class Desk:
    """A home folder, a model server, and one Emacs in a tmux of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        names = ("RUNTIME_DIR", "STATE_HOME", "CACHE_HOME", "CONFIG_HOME")
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TERM": "screen-256color",
            **{f"XDG_{name}": str(home / name.lower()) for name in names},
        }
        for name in names:
            (home / name.lower()).mkdir(mode=0o700)
        self.models, self.url = self._serve_models()
        self._configure()
        elisp = str(ROOT / "elisp")
        (home / "init.el").write_text(INIT.replace("{elisp!r}", f'"{elisp}"'))

    def _serve_models(self) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "tests.fakes.ollama", "--port", "0", "--slots", "2"]
        process = subprocess.Popen(
            [*command, "--model", "root:131072", "--model", "sub:131072"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, process.stdout.readline().split()[-1]

    def _configure(self) -> None:
        folder = self.home / "config_home" / "rlmd"
        folder.mkdir()
        models = "".join(f"[hosts.box.models.{name}]\nwindow = 32768\n" for name in ("root", "sub"))
        (folder / "config.toml").write_text(
            f'[roles]\nroot = ["box/root"]\nsub = ["box/sub"]\n'
            f'[hosts.box]\nurl = "{self.url}"\nprovider = "ollama"\nslots = 2\n{models}'
        )

    def script(self, *root: object) -> None:
        """What the root model replies from now on, in order."""
        body = json.dumps({"scripts": {"root": list(root)}}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/fake/script", body)).close()

    def tmux(self, *command: str) -> str:
        ran = subprocess.run(
            ["tmux", "-S", str(self.home / "tmux"), *command],
            env=self.environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        return ran.stdout

    def edit(self, name: str, text: str | None = None) -> None:
        """Starts Emacs on a file of the home folder."""
        file = self.home / name
        if text is not None:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, f"emacs -nw -Q -l {self.home}/init.el {file}")
        self.sees(rf"F1  {file.name}")

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def says(self, text: str) -> None:
        """Types a line and ends it."""
        self.tmux("send-keys", "-l", text)
        self.keys("Enter")

    def command(self, name: str) -> None:
        self.keys("M-x")
        self.sees(r"^M-x")
        self.says(name)

    def ask(self, question: str) -> None:
        self.keys("C-c", "q")
        self.sees(r"^Ask of ")
        self.says(question)

    @property
    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def sees(self, pattern: str) -> str:
        """Waits until the screen holds the pattern; returns the screen."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, screen := self.screen, re.MULTILINE):
            assert time.monotonic() < deadline, f"{pattern!r} never came:\n{screen}"
            time.sleep(0.05)
        return screen

    def rlmctl(self, *arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "rlmctl"), *arguments]
        return subprocess.run(command, env=self.environment, check=False, stdout=subprocess.PIPE, text=True).stdout

    def daemon_pid(self) -> int:
        return int(json.loads(self.rlmctl("daemon", "status", "--json"))["pid"])

    def close(self) -> None:
        subprocess.run(["tmux", "-S", str(self.home / "tmux"), "kill-server"], check=False, stderr=subprocess.DEVNULL)
        self.rlmctl("daemon", "stop")
        self.models.kill()
        self.models.wait()
        assert self.models.stdout is not None
        self.models.stdout.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    home = Path(tempfile.mkdtemp(prefix="rlm-", dir="/tmp"))  # a short name, for sockets
    desk = Desk(home)
    try:
        yield desk
    finally:
        desk.close()
        shutil.rmtree(home, ignore_errors=True)


NOTES = "line one\nthe quick brown NEEDLE lies\nline three\n"


def test_ask_watch_and_follow_a_citation(desk: Desk) -> None:
    desk.script({"text": QUOTED, "chunk": 6, "pause": 0.05})
    desk.edit("notes.txt", NOTES)
    desk.ask("Where is the needle?")
    desk.sees(r"C-c C-k cancels")
    desk.sees(r"^It lies here:")
    desk.sees(r"^ done · direct · .*M-g n shows what it quotes")
    screen = desk.sees(r"^1\. notes\.txt:2 “the quick brown NEEDLE lies”")
    assert "This is *all* that is known." in screen
    assert re.search(r"notes\.txt +All L1 ", screen)  # point has not moved
    desk.keys("M-g", "n")
    screen = desk.sees(r"^\[1/1\] notes\.txt:2: “the quick brown NEEDLE lies”")
    assert re.search(r"notes\.txt +All L2 ", screen)


def test_cancel_and_ask_on(desk: Desk) -> None:
    desk.script(SLOW, "```repl\nx = 41\n```\nFINAL_VAR(x)", "```repl\ny = x + 1\n```\nFINAL_VAR(y)")
    desk.edit("notes.txt", NOTES)
    desk.ask("Slowly?")
    desk.sees(r"^Slowly it is told")
    desk.keys("C-x", "o")
    desk.keys("C-c", "C-k")
    desk.sees(r"^\*Cancelled:\* asked in Emacs")
    desk.keys("C-x", "1")
    desk.command("rlm")
    desk.sees(r"-s Strategy")
    desk.keys("-", "s")
    desk.says("rlm")
    desk.sees(r"--strategy=rlm")
    desk.keys("l")
    desk.sees(r"^Ask of ")
    desk.says("How many?")
    desk.sees(r"^41$")
    desk.sees(r"^ done · rlm")
    desk.keys("C-x", "o")
    desk.keys("C-c", "C-f")
    desk.sees(r"^Ask of ")
    desk.says("And one more?")
    desk.sees(r"^42$")


def test_a_run_that_a_limit_ended_goes_on(desk: Desk) -> None:
    desk.script("```repl\nx = 41\n```", "Nearly: 41.", "```repl\ny = x + 1\n```\nFINAL_VAR(y)")
    desk.edit("notes.txt", NOTES)
    desk.keys("M-:")
    desk.says('(setq rlm-strategy "rlm" rlm-limits \'(:turns 2))')
    desk.ask("How many?")
    desk.sees(r"^ partial · rlm · .*\[go on\] .*C-c > goes on")
    desk.sees(r"^Nearly: 41\.$")
    desk.keys("C-x", "o")
    desk.keys("C-c", ">")
    desk.sees(r"^42$")
    screen = desk.sees(r"^ done · rlm")
    assert "Nearly" not in screen
    assert "rlm:1" not in screen


def test_trace(desk: Desk) -> None:
    desk.script(*WORK)
    desk.edit("notes.txt", NOTES)
    desk.keys("M-:")
    desk.says('(setq rlm-strategy "rlm")')
    desk.ask("How many?")
    desk.sees(r"^four pieces$")
    desk.keys("C-x", "o")
    desk.keys("C-c", "C-t")
    desk.keys("C-x", "1")
    screen = desk.sees(r"^▾ Ended: answered")
    assert "▾ Turn 1  box/root" in screen
    desk.sees(r"▸ sub-queries 4/4")
    desk.keys("n", "n", "TAB")
    screen = desk.sees(r"^▸ Turn 1")
    assert "sub-queries" not in screen
    desk.keys("TAB", "n", "n", "n", "TAB")
    desk.sees(r"   0 · box +piece 0 → digest")
    desk.keys("Down", "Enter")
    screen = desk.sees(r"^Reply$")
    assert re.search(r"^piece \d$", screen, re.MULTILINE)


def test_a_killed_buffer_ends_its_run_and_nothing_hangs(desk: Desk) -> None:
    desk.script(SLOW, "Afterwards.")
    desk.edit("notes.txt", NOTES)
    desk.ask("Slowly?")
    desk.sees(r"^Slowly it is told")
    desk.keys("C-x", "o")
    desk.keys("C-x", "k", "Enter")
    desk.ask("And now?")
    desk.sees(r"^Afterwards\.$")
    listed = desk.rlmctl("run", "list")
    assert re.search(r"cancelled.*Slowly\?", listed) or re.search(r"Slowly\?.*cancelled", listed), listed


def test_the_daemon_dies_in_mid_stream_and_comes_back(desk: Desk) -> None:
    slower = {**SLOW, "pause": 0.1}
    desk.script(slower, slower)
    desk.rlmctl("daemon", "start")
    pid = desk.daemon_pid()
    desk.edit("notes.txt", NOTES)
    desk.ask("Slowly?")
    desk.sees(r"^Slowly it is told")
    os.kill(pid, signal.SIGKILL)
    desk.sees(r"^ connection lost")
    desk.rlmctl("daemon", "start")
    # By itself: the daemon takes the run up again, and Emacs follows it.
    desk.sees(r"and\s+that\s+is\s+all\.")
    desk.sees(r"^ done · direct")


def test_a_block_in_an_org_document(desk: Desk) -> None:
    desk.script({"text": QUOTED, "latency": 0.5, "chunk": 4, "pause": 0.1})
    desk.edit("notes.org", f"* Notes\n{NOTES}\n#+begin_src rlm\nWhere?\n#+end_src\n\nEnd.\n")
    desk.keys("C-s")
    desk.says("Where")
    desk.keys("C-c", "C-c")
    desk.sees(r"^\[rlm [0-9a-f]+ running")
    desk.keys("M->")
    desk.says("typed meanwhile")
    desk.sees(r"^\[rlm [0-9a-f]+ running.*\n^It lies here:$[^*]*^:end:$")
    screen = desk.sees(r"^1\. Notes:\d+ “the quick brown NEEDLE lies”")
    assert re.search(r"^End\.$\n^typed meanwhile$", screen, re.MULTILINE)
    assert "running" not in screen


def test_a_commit_message(desk: Desk) -> None:
    desk.script('{"subject": "feat: a third line", "body": "It was missing."}')
    repository = desk.home / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository)]
    (desk.home / ".gitconfig").write_text("[user]\nname = A\nemail = a@b\n")
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "feat: begin"]):
        subprocess.run([*git, *arguments], check=True, env=desk.environment)
    (repository / "a.txt").write_text("one\n")
    subprocess.run([*git, "add", "."], check=True, env=desk.environment)
    desk.edit("repository/a.txt")
    desk.command("rlm-magit-mode")
    desk.sees(r"Rlm-Magit mode enabled|auto-revert-mode\.\.\.done")
    desk.command("magit-status")
    desk.sees(r"^Staged changes \(1\)")
    desk.keys("c")
    desk.sees(r"m Message by rlm")
    desk.keys("m")
    desk.sees(r"^feat: a third line$\n\n^It was missing\.$")


def test_lists_and_doctor(desk: Desk) -> None:
    desk.script("Forty-two.")
    desk.edit("notes.txt", NOTES)
    desk.ask("What?")
    desk.sees(r"^Forty-two\.$")
    desk.command("rlm-list-hosts")
    desk.sees(r"^ box +ok +mine +0/2 ")
    desk.keys("?")
    desk.sees(r"rlm-hosts-show")
    desk.keys("C-x", "1")
    desk.command("rlm-list-runs")
    desk.sees(r"answered +direct .*What\?")
    desk.command("rlm-list-contexts")
    desk.sees(r"notes\.txt\S* +48 +1 ")
    desk.command("rlm-doctor")
    desk.sees(r"^  ok  connection +rlmd ")
