"""A person with a fresh Debian and nothing else: the README's lines, an answer, and every trace taken away again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import trixie
from tests.harness import ROOT
from tests.integration.test_readme import CITED, FIRST

#: Run by an ordinary user inside; $1 is the README's first command. Each part's output goes to a file of its own.
AS_A_PERSON = """set -eu
out=/tmp/told && mkdir -p $out && cd ~/rlmd
listed() { (cd ~ && find . -path ./rlmd -prune -o -path ./.local/share/rlmd/venv -prune -o -print | sort); }
listed > $out/before
sh -c "$1" > $out/first 2> $out/first.err
~/.local/share/rlmd/venv/bin/rlmctl install --yes > $out/install 2>&1
listed > $out/installed
PATH=$HOME/.local/bin:$PATH && cd ~
rlmctl doctor --json > $out/doctor || true
rlmctl ask -f notes.txt "Why did the mill burn down?" > $out/answer 2> $out/answer.err
(rlmd=~/.local/share/rlmd
 mv $rlmd/venv/lib/python3.* $rlmd/venv/lib/python3.8
 rlmctl status > $out/exchanged 2>&1 || echo $? >> $out/exchanged
 rlmctl doctor --fix > $out/mended 2>&1
 rlmctl ask -f notes.txt "Why did the mill burn down?" > $out/again 2>> $out/mended)
rlmctl daemon stop > $out/stop 2>&1
rlmctl uninstall --yes > $out/uninstall 2>&1
listed > $out/uninstalled
rm -r ~/.local/share/rlmd ~/.local/state/rlmd ~/.cache/rlmd ~/.config/rlmd 2>> $out/stop || true
listed > $out/after
"""

#: What root prepares: a user with files of their own, in a tree that forgets what is written to it.
PREPARE = """set -e
useradd --create-home --shell /bin/bash anna
install -d -o anna -g anna -m 700 /run/user/anna /home/anna/rlmd /home/anna/.config /home/anna/.config/systemd \
  /home/anna/.config/systemd/user
tar -x -C /home/anna/rlmd --no-same-owner < "$1"
echo 'The mill burned down because of a lantern.' > /home/anna/notes.txt
echo '[Service]' > /home/anna/.config/systemd/user/mine.service
chown -R anna: /home/anna
exec setpriv --reuid anna --regid anna --init-groups env -i HOME=/home/anna USER=anna LANG=C.UTF-8 \
  PATH=/usr/local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/anna sh -c "$2" sh "$3"
"""

#: Where rlmd keeps what is its own; and the folders that were made on the way, which others use too.
OWN = ("./.local/share/rlmd", "./.local/state/rlmd", "./.cache/rlmd", "./.config/rlmd", "./.cache/pip")
FOLDERS = ("./.local", "./.local/share", "./.local/state", "./.cache")


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_an_ordinary_user_of_a_fresh_debian(tmp_path: Path) -> None:
    archive = tmp_path / "rlmd.tar"
    with archive.open("wb") as out:
        subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, stdout=out)
    told = tmp_path / "told"
    told.mkdir(mode=0o777)
    told.chmod(0o777)
    as_a_person = AS_A_PERSON.replace("/tmp/told", str(told))
    command = trixie.entering(
        trixie.fresh_folder(),
        "sh",
        "-c",
        PREPARE,
        "sh",
        str(archive),
        as_a_person,
        FIRST,
        shared=tmp_path,
        forgets=True,
    )
    tmp_path.chmod(0o755)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    parts = {file.name: file.read_text(errors="replace") for file in told.iterdir() if file.is_file()}
    assert done.returncode == 0, (done.stderr, parts)

    assert len(CITED.findall(parts["first"])) == 3
    assert "No language model was used" in parts["first"]
    doctor = json.loads(parts["doctor"])
    assert [check for check in doctor["checks"] if check["needed"] and not check["ok"]] == []
    assert "lantern" in parts["answer"]
    before, installed = parts["before"].splitlines(), set(parts["installed"].splitlines())
    assert {"./.local/bin/rlmctl", "./.config/systemd/user/rlmd.socket"} <= installed
    assert "rlmctl doctor --fix" in parts["exchanged"]
    assert parts["exchanged"].endswith("78\n")
    assert "rlmd is well again" in parts["mended"]
    assert "lantern" in parts["again"]
    # What stays after uninstall is rlmd's own; after the last line of the README nothing does, but pip's cache.
    left = [path for path in parts["uninstalled"].splitlines() if path not in before]
    assert [path for path in left if path not in FOLDERS and not path.startswith(OWN)] == []
    remaining = [path for path in parts["after"].splitlines() if path not in before]
    assert [path for path in remaining if path not in FOLDERS and not path.startswith("./.cache/pip")] == []
    assert set(before) <= set(parts["after"].splitlines())
