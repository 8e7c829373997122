"""The Emacs side in real Emacs: compiled, documented and linted without a warning, and every ERT test by its name.

Each file of elisp/test runs once, in an Emacs of its own; what it says of each test is a test here, so that one
summary counts everything. All of it happens twice: in the Emacs of this machine, and in the full tier in Emacs 30.1.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import trixie

ROOT = Path(__file__).resolve().parents[2]
ELISP = ROOT / "elisp"
SOURCES = sorted(ELISP.glob("*.el"))
TESTS = sorted((ELISP / "test").glob("*-test.el"))
#: Seconds for one file of tests: a bound of a hang.
PATIENCE = 900

pytestmark = pytest.mark.timeout(PATIENCE + 60)

DEFINED = re.compile(r"^\(ert-deftest (\S+)", re.MULTILINE)
RESULT = re.compile(r"^ +(passed|FAILED|skipped|ABORTED|QUIT) +\d+/\d+ +(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Emacs:
    """One Emacs. ``inside``: that of Debian 13, where the repository has another name."""

    name: str
    inside: bool = False

    @property
    def root(self) -> Path:
        return trixie.INSIDE if self.inside else ROOT

    def site(self, package: str) -> Path:
        """The folder of an add-on package that the distribution brings, as this Emacs sees it."""
        top = trixie.folder() if self.inside else Path("/")
        found = next(iter(sorted(top.glob(f"usr/share/emacs/site-lisp/elpa*/{package}-[0-9]*"))))
        return Path("/") / found.relative_to(top)

    def batch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["emacs", "-Q", "--batch", *arguments]
        here = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "RLM_TEST_PYTHON": sys.executable}
        return subprocess.run(
            trixie.entering(trixie.folder(), *command) if self.inside else command,
            cwd=ROOT,
            env=trixie.ENVIRONMENT if self.inside else {**trixie.ENVIRONMENT, **here},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )


EMACSES = [
    pytest.param(Emacs("here"), id="here"),
    pytest.param(Emacs("30.1", inside=True), id="30.1", marks=pytest.mark.full),
]
each_emacs = pytest.mark.parametrize("emacs", EMACSES)


@dataclass(frozen=True)
class Told:
    """What Emacs said of one file's tests."""

    status: int
    output: str
    results: dict[str, str]


@functools.cache
def run_file(emacs: Emacs, name: str) -> Told:
    ran = emacs.batch(
        "-L", "elisp", "-L", "elisp/test", "-l", f"elisp/test/{name}", "-f", "ert-run-tests-batch-and-exit"
    )
    return Told(ran.returncode, ran.stdout, {test: result for result, test in RESULT.findall(ran.stdout)})


def story_of(name: str, output: str) -> str:
    """The part of the output that ends with the test's result, with the lines around it."""
    place = output.find(f"  {name}\n")
    return output[max(0, place - 4000) : place + 500] if place >= 0 else output[-6000:]


@each_emacs
@pytest.mark.parametrize(
    ("file", "name"),
    [pytest.param(file, name, id=name) for file in TESTS for name in DEFINED.findall(file.read_text())],
)
def test_ert(emacs: Emacs, file: Path, name: str) -> None:
    told = run_file(emacs, file.name)
    assert told.results.get(name) == "passed", story_of(name, told.output)


@each_emacs
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_ert_file_ends_well(emacs: Emacs, file: Path) -> None:
    """Emacs itself must say so too: an error outside of any test counts."""
    told = run_file(emacs, file.name)
    assert told.status == 0, told.output[-6000:]


#: Compiles copies, so that nothing is left beside the sources; says how many there are.
COMPILE = r"""(let* ((sources (directory-files "elisp" t "[.]el$"))
       (folder (file-name-as-directory (make-temp-file "rlm-compiled-" t)))
       (load-path (cons folder load-path))
       compiled)
  (require 'bytecomp)
  (setq byte-compile-error-on-warn t)
  (dolist (source sources)
    (copy-file source folder))
  (setq compiled (mapcar #'byte-compile-file (directory-files folder t "[.]el$")))
  (delete-directory folder t)
  (message "compiled %d of %d" (length (delq nil compiled)) (length sources)))"""


@each_emacs
def test_compiles_without_a_warning(emacs: Emacs) -> None:
    compiled = emacs.batch("--eval", COMPILE)
    assert compiled.returncode == 0, compiled.stdout
    assert f"compiled {len(SOURCES)} of {len(SOURCES)}" in compiled.stdout, compiled.stdout


@each_emacs
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_checkdoc_finds_nothing(emacs: Emacs, source: Path) -> None:
    """Without its guesses about verbs, and about full stops, which belong to sentences that a person is shown."""
    without = "(setq checkdoc-verb-check-experimental-flag nil)"
    check = f'(checkdoc-file "{emacs.root}/elisp/{source.name}")'
    read = emacs.batch("-L", "elisp", "--eval", without, "--eval", check)
    assert read.returncode == 0, read.stdout
    found = [line for line in read.stdout.splitlines() if source.name in line]
    assert not [line for line in found if not re.search(r"Error messages should|Messages should start", line)]


@each_emacs
def test_package_lint_finds_nothing(emacs: Emacs) -> None:
    """Old releases of the linter do not know the Emacs that is asked for, nor all names that Org wants of a language:
    what they say of these does not count."""
    load = '(progn (require \'package-lint) (cd "elisp") (setq package-lint-main-file "rlm.el"))'
    names = [source.name for source in SOURCES]
    more = ["-L", str(emacs.site("let-alist"))] if emacs.inside else []
    linter = ["-L", str(emacs.site("package-lint")), *more]
    read = emacs.batch(*linter, "--eval", load, "-f", "package-lint-batch-and-exit", *names)
    found = re.findall(r"^\S+:\d+:\d+: .*", read.stdout, re.MULTILINE)
    assert "Debugger entered" not in read.stdout, read.stdout
    assert "rror" not in read.stdout or found, read.stdout
    unknown = re.compile(r"uninstallable in all released Emacs versions|[\"`]org-babel-[a-z-]+:rlm\b")
    assert not [line for line in found if not unknown.search(line)]


USE_PACKAGE = re.findall(r"```elisp\n(\(use-package .*?)\n```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
#: Evaluates the form for some of its keys, or where there is no use-package what it comes to, and presses these.
PRESS = r"""(progn
  (require 'cl-lib)
  (require 'transient)
  (setenv "XDG_RUNTIME_DIR" "/nonexistent")
  (setq rlm-auto-start nil)
  (let ((form (copy-tree '{form})))
    (plist-put (cddr form) :bind
               (seq-filter (lambda (pair) (member (car pair) {keys})) (plist-get (cddr form) :bind)))
    (if (require 'use-package nil t)
        (eval form t)
      (add-to-list 'load-path (plist-get (cddr form) :load-path))
      (pcase-dolist (`(,key . ,command) (plist-get (cddr form) :bind))
        (autoload command "rlm" nil t)
        (global-set-key (kbd key) command))))
  (cl-letf (((symbol-function 'read-from-minibuffer) (lambda (&rest _) "Why?"))
            ((symbol-function 'transient-setup) (lambda (name) (message "menu %s" name))))
    (with-temp-buffer
      (insert "text")
      (dolist (key {keys})
        (condition-case err
            (call-interactively (key-binding (kbd key)))
          (user-error (message "%s" (cadr err))))))))"""


SAID = {"C-c q": "No rlmd listens", "C-c Q": "menu rlm-dispatch"}


@each_emacs
@pytest.mark.parametrize("keys", [("C-c q",), ("C-c Q",), ("C-c q", "C-c Q")], ids=" and ".join)
def test_keys_of_use_package_work_when_first_pressed(emacs: Emacs, keys: tuple[str, ...]) -> None:
    """use-package makes its commands autoloads of rlm.el, which leads on to the file that has them."""
    (form,) = USE_PACKAGE
    form = form.replace("~/.local/share/rlmd/elisp", str(emacs.root / "elisp"))
    listed = "'({})".format(" ".join(f'"{key}"' for key in keys))
    pressed = emacs.batch("--eval", PRESS.replace("{form}", form).replace("{keys}", listed))
    assert pressed.returncode == 0, pressed.stdout
    assert all(SAID[key] in pressed.stdout for key in keys), pressed.stdout


INSTALL = r"""(progn
  (package-initialize)
  (package-install-file "{archive}")
  (message "installed"))"""
USE = r"""(progn
  (package-initialize)
  (unless (commandp 'rlm-query) (error "No command"))
  (unless (autoloadp (symbol-function 'rlm-dispatch)) (error "No autoload"))
  (require 'rlm)
  (message "%s" (file-name-extension (symbol-file 'rlm-version))))"""


def test_the_package_is_installed_from_a_file(tmp_path: Path) -> None:
    """As package-install-file does it: commands are there before anything is loaded, and what is loaded is compiled."""
    archive = tmp_path / "rlm-0.1.0.tar"
    description = '(define-package "rlm" "0.1.0" "Ask questions of texts of any size" \'((emacs "28.1")))'
    (tmp_path / "rlm-pkg.el").write_text(description, encoding="utf-8")
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(tmp_path / "rlm-pkg.el", "rlm-0.1.0/rlm-pkg.el")
        for source in SOURCES:
            tar.add(source, f"rlm-0.1.0/{source.name}")
    home = f'(progn (require (quote package)) (setq package-user-dir "{tmp_path}/elpa" package-archives nil))'
    emacs = Emacs("here")
    installed = emacs.batch("--eval", home, "--eval", INSTALL.replace("{archive}", str(archive)))
    assert installed.returncode == 0, installed.stdout
    assert not re.search(r"rlm\S*\.el:\d+:\d+: (Warning|Error)", installed.stdout), installed.stdout
    used = emacs.batch("--eval", home, "--eval", USE)
    assert used.returncode == 0, used.stdout
    assert used.stdout.splitlines()[-1] == "elc"
