"""What OpenCode and Claude Code need to have rlmd's tools: an MCP entry, and words on how to work with them.

An entry is merged into the client's own config; all else that stands there stays as it is. Formats:
https://opencode.ai/docs/mcp-servers and https://opencode.ai/docs/agents, https://code.claude.com/docs/en/mcp and
https://code.claude.com/docs/en/skills
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlmd.errors import Conflict, RlmdError

#: Variables that move rlmd's folders; clients start servers without them.
_MOVING = ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
#: Milliseconds that OpenCode gives a tool: a root that reads a book takes minutes.
_PATIENCE = 600_000

_HOW = """\
Texts that are larger than your window are contexts of rlmd: they are not put into your window, you explore them by its
tools. Work so:

1. `list_contexts`; what is not there, `load_context` loads: a file by `path`, a text by `content`.
2. Look before you read: `context_info`, `search_context`, and `peek_context` for a stretch. Never peek through a whole
   text.
3. Explore by code: `execute_code` with `context=NAME`. There `context` is the text as a Python string, `documents` its
   documents, `search(query, k)`, `grep(pattern)`, `chunks(text, size)` find pieces. Variables stay between calls.
   Print little: counts, places, short samples.
4. Have sub-models read: in code, `llm_query_batched([f"{question}\\n\\n{piece}" for piece in pieces])`, pieces of some
   10,000 characters and more; `ok(results)` are those that were answered. A line at a time wastes them.
5. Compute what can be computed in code; check a finding against the text before you say it, and quote the text.

`rlm_ask` does all that by itself and answers with citations: use it when the question is asked of a whole text. It may
answer with an id: ask `rlm_result` until it is there.
"""
_DESCRIPTION = "Answers questions over texts of any size (books, logs, repositories, mail) by the tools of rlmd"


@dataclass(frozen=True, slots=True)
class Addition:
    """One file as it is to be. ``shown`` is what is added, where the file has more of its own."""

    path: Path
    shown: str
    content: str


def additions(client: Literal["opencode", "claude"], environment: Mapping[str, str] = os.environ) -> list[Addition]:
    """The files of a client with what rlmd adds. Raises ``Conflict`` for a config that cannot be added to."""
    home = Path(environment.get("HOME") or Path("~").expanduser())
    moved = {name: environment[name] for name in _MOVING if environment.get(name)}
    if client == "opencode":
        return _opencode(Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "opencode", moved)
    return _claude(home, Path(environment.get("CLAUDE_CONFIG_DIR") or home / ".claude"), environment, moved)


def apply(found: list[Addition]) -> list[Path]:
    """Writes them; what changed."""
    changed = []
    for one in found:
        if one.path.exists() and one.path.read_text(encoding="utf-8") == one.content:
            continue
        _write(one.path, one.content)
        changed.append(one.path)
    return changed


def _opencode(folder: Path, moved: Mapping[str, str]) -> list[Addition]:
    entry: dict[str, Any] = {"type": "local", "command": _command(), "enabled": True, "timeout": _PATIENCE}
    if moved:
        entry["environment"] = dict(moved)
    config = _merged(
        folder / "opencode.json", {"mcp": {"rlmd": entry}}, first={"$schema": "https://opencode.ai/config.json"}
    )
    agent = f"---\ndescription: {_DESCRIPTION}\nmode: all\n---\n\n{_HOW}"
    return [config, Addition(folder / "agents" / "rlm.md", agent, agent)]


def _claude(home: Path, folder: Path, environment: Mapping[str, str], moved: Mapping[str, str]) -> list[Addition]:
    command, *arguments = _command()
    entry: dict[str, Any] = {"type": "stdio", "command": command, "args": arguments, "env": dict(moved)}
    # With CLAUDE_CONFIG_DIR its .claude.json is in there, else in the home folder.
    file = (folder if environment.get("CLAUDE_CONFIG_DIR") else home) / ".claude.json"
    skill = f"---\nname: rlm\ndescription: {_DESCRIPTION}\n---\n\n{_HOW}"
    return [
        _merged(file, {"mcpServers": {"rlmd": entry}}),
        Addition(folder / "skills" / "rlm" / "SKILL.md", skill, skill),
    ]


def _command() -> list[str]:
    """Whole paths: clients are started by desktops too, where PATH is short."""
    return [sys.executable, "-P", "-m", "rlmd.ctl.main", "mcp"]


def _merged(file: Path, added: dict[str, Any], *, first: Mapping[str, Any] | None = None) -> Addition:
    shown = json.dumps(added, indent=2, ensure_ascii=False) + "\n"
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = dict(first or {})
    except (OSError, ValueError):
        raise Conflict(f"{file} is no JSON that can be added to.", hint=f"Add this by hand:\n{shown}") from None
    if not isinstance(there, dict):
        raise Conflict(f"{file} holds no JSON object.", hint=f"Add this by hand:\n{shown}")
    for key, entries in added.items():
        own = there.setdefault(key, {})
        if not isinstance(own, dict):
            raise Conflict(f"{file}: {key} is no object.", hint=f"Add this by hand:\n{shown}")
        own.update(entries)
    return Addition(file, shown, json.dumps(there, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, content: str) -> None:
    """Whole or not at all; a file that was there keeps its mode."""
    part = path.with_name(f".{path.name}.rlmd")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # a config that is a link into a repository of dotfiles stays one
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        part = target.with_name(part.name)
        part.write_text(content, encoding="utf-8")
        part.chmod(mode)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RlmdError(f"{path} cannot be written: {error.strerror}.", hint="See its folder's owner.") from None
