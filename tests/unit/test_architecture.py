"""The house's rules that can be read off the source: who imports whom, no globals, what stands at the top.

The arrows are those of the design: ``wire → engine → (repl, pool, contexts) → providers → (events, errors, config)``.
Each part names what it may import of rlmd; what is not named is forbidden, also below ``if TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "rlmd").rglob("*.py"))

#: The vocabulary that every part may use.
VOCABULARY = frozenset(("", "errors", "events", "config", "validation", "schema"))
CLIENTS = VOCABULARY | {"wire.methods"}

#: The modules of the worker.
CHILD = ("arrivals", "asking", "awaiting", "boot", "cage", "cutting", "leaving", "link", "namespaces", "queries",
         "scaffold", "shapes", "spans", "streams", "texts", "values", "worker")  # fmt: skip
#: Part → the parts below it that it may import. The longest prefix of a module's name counts.
BELOW: dict[str, frozenset[str]] = {
    "": frozenset(),
    "errors": frozenset(),
    "events": frozenset({"errors"}),
    "validation": frozenset({"errors"}),
    "schema": frozenset({"errors"}),
    "config": frozenset({"", "errors", "events", "validation"}),
    "providers": VOCABULARY,
    "repl": VOCABULARY,
    # The child's side.
    "repl.arrivals": frozenset(),
    "repl.boot": frozenset({"repl.worker"}),
    "repl.cage": frozenset(),
    "repl.namespaces": frozenset({"repl.cage"}),
    "repl.leaving": frozenset({"repl.scaffold"}),
    "repl.queries": frozenset({"repl.asking", "repl.link", "repl.shapes"}),
    "repl.streams": frozenset({"repl.cage"}),
    "repl.values": frozenset({"repl.asking", "repl.link"}),
    "repl.texts": frozenset(),
    "repl.cutting": frozenset({"repl.texts"}),
    "repl.spans": frozenset({"repl.texts"}),
    "repl.link": frozenset(),
    "repl.asking": frozenset({"repl.link", "repl.spans"}),
    "repl.shapes": frozenset({"repl.link"}),
    "repl.scaffold": frozenset(
        f"repl.{name}" for name in ("asking", "cutting", "link", "queries", "spans", "texts", "values")
    ),
    "repl.awaiting": frozenset({"repl.scaffold"}),
    "repl.worker": frozenset(f"repl.{name}" for name in CHILD if name not in ("boot", "worker")),
    "disksync": frozenset(),
    "contexts": VOCABULARY | {"disksync"},
    # The child's side: it is sealed as a worker is.
    "contexts.converter_child": frozenset({"repl.cage"}),
    "pool": VOCABULARY | {"providers"},
    "engine": VOCABULARY | {"disksync", "providers", "pool", "repl", "contexts"},
    "changed": VOCABULARY,
    "wire": VOCABULARY | {"changed", "ownprocess", "tomltext", "providers", "pool", "repl", "contexts", "engine"},
    "wire.methods": CLIENTS,
    "wire.framing": VOCABULARY,
    "client": CLIENTS,
    "evaluation": CLIENTS | {"client"},
    "ctl": CLIENTS | {"client", "tomltext", "evaluation", "soundness", "launcher"},
    "ctl.commands.mcp": CLIENTS | {"client", "ctl", "mcp"},
    # How a text is handed over and what is said of a run's progress is one thing for all clients.
    "mcp": CLIENTS | {"client", "ctl.sources", "ctl.progress", "ctl.terminal"},
    "systemd_journal": VOCABULARY,
    "logs": VOCABULARY | {"systemd_journal"},
    "tomltext": frozenset(),
    "garbage": frozenset(),
    "ownprocess": frozenset(),
    "claim": VOCABULARY,
    "systemd": VOCABULARY,
    # They run where nothing else of rlmd can be found.
    "launcher": frozenset(),
    "mending": frozenset(),
    "soundness": VOCABULARY,
    "reloading": VOCABULARY | {"changed", "systemd", "contexts", "wire"},
    "nights": VOCABULARY | {"pool", "engine"},
    "daemon": VOCABULARY
    | {"logs", "claim", "systemd", "ownprocess", "reloading", "nights", "garbage"}
    | {"providers", "pool", "repl", "contexts", "engine", "wire"},
    "__main__": VOCABULARY | {"logs", "ownprocess", "daemon", "soundness"},
}

#: What may stand at the top of the repository.
TOP = {".ci", ".gitignore", "LICENSE", "README.md", "docs", "elisp", "pyproject.toml", "rlmd", "systemd", "tests"}


def name_of(path: Path) -> str:
    """The module's name below rlmd: ``rlmd/wire/framing.py`` is ``wire.framing``, a package its own name."""
    parts = path.relative_to(ROOT / "rlmd").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str, parts: Collection[str]) -> str | None:
    """The longest of ``parts`` that is ``module`` or holds it."""
    pieces = module.split(".") if module else []
    for length in range(len(pieces), 0, -1):
        if (prefix := ".".join(pieces[:length])) in parts:
            return prefix
    return "" if not module and "" in parts else None


def is_module(name: str) -> bool:
    base = ROOT / "rlmd" / Path(*name.split("."))
    return base.with_suffix(".py").is_file() or base.is_dir()


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute module name) of every import in the file."""
    module = ["rlmd", *name_of(path).split(".")] if name_of(path) else ["rlmd"]
    package = module if path.name == "__init__.py" else module[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                below = f"{source}.{alias.name}"
                inside = source == "rlmd" or source.startswith("rlmd.")
                yield node.lineno, below if inside and is_module(below.removeprefix("rlmd.")) else source


def upward(path: Path) -> Iterator[str]:
    """What a file imports that its part may not."""
    name = name_of(path)
    part = part_of(name, BELOW)
    assert part is not None, f"{name} belongs to no part of the design: give it its place in BELOW"
    own = part.split(".")[0]
    for line, imported in imports_of(path):
        if imported.split(".")[0] != "rlmd":
            continue
        target = imported.removeprefix("rlmd").removeprefix(".")
        inside = own and target.split(".")[0] == own and "." not in part
        if not inside and part_of(target, BELOW[part]) is None:
            yield f"{path.relative_to(ROOT)}:{line} imports {imported}"


def test_imports_point_down() -> None:
    assert len(SOURCES) > 50
    assert not [wrong for path in SOURCES for wrong in upward(path)]


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules each of which leads back to itself by way of the others."""
    reached: dict[str, set[str]] = {}
    for module in imports:
        found, ahead = set[str](), [module]
        while ahead:
            new = imports[ahead.pop()] - found
            found |= new
            ahead += new
        reached[module] = found
    back = {module: frozenset(one for one in reached[module] if module in reached[one]) for module in imports}
    return sorted(sorted(circle) for circle in set(back.values()) if circle)


#: The command that writes the manual page of all commands, itself among them.
MEANT = [["ctl.app", "ctl.commands.install"]]


def test_no_file_leads_back_to_itself() -> None:
    """Also by what is imported for its types alone, or in a function: what one file knows, the other need not."""
    names = {name_of(path) for path in SOURCES}
    imports = {
        name_of(path): {imported.removeprefix("rlmd.") for _, imported in imports_of(path)} & names - {name_of(path)}
        for path in SOURCES
    }
    assert imports["engine.run"] > {"engine.cells", "engine.sessions"}
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == [["a", "b", "c"]]
    assert circles(imports) == MEANT


@pytest.mark.parametrize("name", [f"repl/{module}.py" for module in CHILD])
def test_the_child_uses_the_standard_library_alone(name: str) -> None:
    path = ROOT / "rlmd" / name
    foreign = [
        f"{name}:{line} imports {imported}"
        for line, imported in imports_of(path)
        if imported.split(".")[0] not in sys.stdlib_module_names
        and imported not in {f"rlmd.repl.{module}" for module in CHILD}
    ]
    assert not foreign


@pytest.mark.parametrize("module", ["rlmd.client", "rlmd.ctl.main"])
def test_clients_do_not_load_the_daemon(module: str) -> None:
    """What the source shows must hold at run time too: a heavy ``__init__`` on the way would cost every command."""
    code = f"import {module}, sys; print(*(name for name in sys.modules if name.startswith('rlmd.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    daemon = ("rlmd.engine", "rlmd.pool", "rlmd.contexts", "rlmd.repl", "rlmd.providers", "rlmd.daemon")
    assert not [name for name in loaded if name.startswith(daemon)]


def empty_container(node: ast.expr | None) -> bool:
    """Whether a value is a container that is meant to be filled later."""
    if isinstance(node, ast.Dict):
        return not node.keys
    if isinstance(node, ast.List):
        return not node.elts
    calls = ("list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict")
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls and not node.args


def globals_of(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(ROOT)
    yield from (f"{where}:{node.lineno} global" for node in ast.walk(tree) if isinstance(node, ast.Global))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and empty_container(node.value):
            yield f"{where}:{node.lineno} a container to be filled, at module level"


def test_no_globals() -> None:
    assert not [wrong for path in SOURCES for wrong in globals_of(path)]


def test_every_file_says_what_it_owns() -> None:
    silent = [path for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent


def test_the_top_holds_only_what_is_meant_to() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in tracked.splitlines()} <= TOP
