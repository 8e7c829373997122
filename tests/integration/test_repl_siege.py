"""Every attack of ``tests/attacks.py`` against workers with chosen layers, as root and as an ordinary user.

Where nothing holds them they get through; with all layers all are held, with bubblewrap and with namespaces
of the worker's own in its place; where there are neither, all but three; and each layer
holds by itself what the table says of it, no less and no more. The siege itself is ``tests/siege.py``, in a process of
its own for each user.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import ATTACKS, LOOKING, table
from tests.siege import CAGES, PLANS, Finding, expected
from tests.user_manager import ROOT, UID, exposed, privileged

#: A siege is one test's work to pytest, whichever test asks for it first.
pytestmark = pytest.mark.timeout(1800)

USERS = ("root", "ordinary user")
#: Attacks that are tried under every plan in the CI tier; the rest of the matrix is in the full one.
SAMPLE = 8
_FIRST = ("nothing", *CAGES)
_REST = tuple(plan for plan in PLANS if plan not in _FIRST)
#: Where no namespaces can be made, by bubblewrap or by the worker, names, sizes and times of files can be asked for,
#: and the machine's name: see docs/security.md.
NEEDS_NAMESPACES = {name for name, attack in ATTACKS.items() if attack.held_by == {"bubblewrap", "namespaces"}}

Findings = dict[tuple[str, str], Finding]


def siege(user: str, plans: tuple[str, ...], attacks: tuple[str, ...] = ()) -> Findings:
    """What the siege found, by plan and attack."""
    script = str(Path(__file__).with_name("as_user.sh"))
    become = {
        # Mounts of its own: what others mount meanwhile is not what an attack left.
        "root": [*privileged(), "unshare", "--mount", "--propagation", "private"],
        "ordinary user": [*privileged(), script, str(UID), *exposed(), "--"] if os.getuid() == 0 else [],
    }[user]
    environment = ["env", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1"]
    chosen = [*plans, *(("--", *attacks) if attacks else ())]
    command = [*become, *environment, sys.executable, "-m", "tests.siege", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    return {(one.plan, one.attack): one for one in found}


@pytest.fixture(scope="module")
def findings() -> Iterator[dict[str, Findings]]:
    """The siege of a bare worker and of the cages, by both users at once."""
    with concurrent.futures.ThreadPoolExecutor(len(USERS)) as threads:
        yield dict(zip(USERS, threads.map(partial(siege, plans=_FIRST), USERS), strict=True))


@pytest.fixture(params=USERS)
def found(request: pytest.FixtureRequest, findings: dict[str, Findings]) -> Findings:
    return findings[request.param]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_works_where_nothing_holds_it(name: str, found: Findings) -> None:
    finding = found.get(("nothing", name))
    assert finding is None or ATTACKS[name].vacuous or finding.outcome == "through", finding


@pytest.mark.parametrize("cage", CAGES)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_cage_holds_it_and_nothing_is_left(name: str, cage: str, found: Findings) -> None:
    """And the session worked, in which it was tried: the one after the last attack."""
    finding = found.get((cage, name))
    if finding is None:
        assert ATTACKS[name].root
    elif cage == "no namespaces" and name in NEEDS_NAMESPACES:
        assert finding.outcome == "through", "it is held by now: say so in docs/security.md"
    else:
        assert (finding.outcome, finding.left) == ("held", []), finding


def test_what_takes_namespaces_is_looking_at_names_alone() -> None:
    assert {ATTACKS[name].kind for name in NEEDS_NAMESPACES} == {LOOKING}


def test_most_attacks_exist_here(found: Findings) -> None:
    """A kernel may lack some of what is attacked; one that lacks much of it would prove nothing."""
    bare = [finding for (plan, _), finding in found.items() if plan == "nothing"]
    assert sum(finding.outcome == "through" for finding in bare) >= len(bare) - 8


def judge(user: str, attacks: tuple[str, ...]) -> None:
    found = siege(user, _REST, attacks)
    wrong = [
        (finding, wanted)
        for (plan, name), finding in found.items()
        if (wanted := expected(ATTACKS[name], PLANS[plan])) and wanted != finding.outcome
    ]
    assert not wrong
    assert len(found) >= len(_REST) * (len(attacks) or len(ATTACKS)) // 2


@pytest.mark.parametrize("user", USERS)
def test_each_layer_holds_what_the_table_says(user: str) -> None:
    judge(user, tuple(random.Random(3).sample(sorted(ATTACKS), SAMPLE)))


@pytest.mark.full
@pytest.mark.parametrize("user", USERS)
def test_each_layer_holds_what_the_table_says_of_every_attack(user: str) -> None:
    judge(user, ())


#: A layer → the stack that lacks it and nothing else, and what then gets through (the threads as root, whom the
#: kernel's limit on them does not hold).
WEIGHT = {
    "seccomp": ("all but seccomp", "memfd"),
    "landlock": ("all but landlock", "folders above the interpreter"),
    "namespaces": ("no namespaces", "size of the key file"),
    "limits": ("all but limits", "descriptors"),
    "watch": ("no namespaces, no watch", "threads"),
    "seccomp without bubblewrap": ("all but bubblewrap and seccomp", "signal that kills another"),
    "landlock without bubblewrap": ("all but bubblewrap and landlock", "folders above the interpreter"),
    "limits without bubblewrap": ("all but bubblewrap and limits", "descriptors"),
    "seccomp without namespaces": ("no namespaces, no seccomp", "tcp"),
    "landlock without namespaces": ("no namespaces, no landlock", "key file"),
}


@pytest.mark.parametrize("layer", WEIGHT)
def test_without_one_layer_something_gets_through(layer: str) -> None:
    plan, name = WEIGHT[layer]
    assert siege("root", (plan,), (name,))[plan, name].outcome == "through"


def test_the_documents_say_what_is_tested() -> None:
    assert table() in (ROOT / "docs" / "security.md").read_text()
