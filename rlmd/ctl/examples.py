"""Examples of the commands that show none of their own, for --help and the manual page: each is a line that works.

Knows the names of the commands and nothing of what they do.
"""

from __future__ import annotations

import typer

#: By the command's path: what stands behind its name, and what that does.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "query": (('"Say yes."', "whether the sub-models answer"), ("- --model m40 < prompt.txt", "a prompt from a file")),
    "top": (("", "until Ctrl-C"), ("--once", "one look, also into a pipe")),
    "install": (("", "on this desk"), ("claude --write", "as tools of Claude Code")),
    "uninstall": (("", "shows what goes, and asks"),),
    "status": (("", ""), ("--json", "for a program")),
    "doctor": (("", ""), ("--fix", "after an upgrade of Python")),
    "gc": (("--dry-run", "what would go"), ("", "")),
    "context update": (("linux", ""), ("linux --dry-run", "whether anything has changed")),
    "context flags": (("mail", "who may read it"), ("mail --private", "trusted hosts and clients alone")),
    "context diff": (("linux", "the last change"), ("linux --from 3 --to 7", "between two revisions")),
    "context list": (("", ""), ("--json", "for a program")),
    "context info": (("linux", ""), ("linux --from 20 --limit 50", "more of its documents")),
    "context peek": (("report", "its beginning"), ("linux MAINTAINERS --start 4000", "of one document of many")),
    "context search": (
        ('linux "who takes rtnl_lock"', "the best passages"),
        (r"linux --regex 'rtnl_lock\(' -n 50", "places that match"),
    ),
    "context drop": (("linux", ""), ("a b c", "several")),
    "run list": (("", ""), ("--state running", "those at work")),
    "run show": (("1a2b", "enough of its id"), ("1a2b --json", "for a program")),
    "run cancel": (("1a2b", ""),),
    "run confirm": (("1a2b", "go on"), ("1a2b refuse", "end it with what it has")),
    "run continue": (("1a2b", "as much again as it had"), ("1a2b --minutes 30", "half an hour more")),
    "run export": (("1a2b -o answer.html", "a page for a browser"), ("1a2b -f jsonl > run.jsonl", "a log")),
    "run fetch": ((f"1a2b {'0' * 64}", "the digest as a fact names it"),),
    "run delete": (("1a2b 3c4d", ""),),
    "run attach": (("1a2b", "from its beginning to its end"), ("1a2b --events", "as lines of JSON")),
    "session list": (("", ""),),
    "session show": (("novel", ""),),
    "session reset": (("novel", "its variables are forgotten"),),
    "session drop": (("novel", ""),),
    "host list": (("", ""), ("--json", "for a program")),
    "host pause": (("m40", "before its machine is shut down"),),
    "host resume": (("m40", ""),),
    "host wake": (("m40", ""),),
    "host calibrate": (("m40", ""), ("m40 --model qwen2.5-coder:32b", "one of its models")),
    "host remove": (("m40", ""),),
    "program list": (("", ""),),
    "budget": (("", "what was spent today and this month"), ("--run 1a2b", "also by one run")),
    "budget allow": (("1a2b", "it waits because budget.ask is on"),),
    "cache stats": (("", ""),),
    "cache clear": (("", ""),),
    "daemon status": (("", ""),),
    "daemon doctor": (("", ""),),
    "daemon gc": (("", ""),),
    "daemon start": (("", ""),),
    "daemon reload": (("", "after an edit of config.toml"),),
    "daemon restart": (("", "after an upgrade"),),
    "daemon stop": (("", ""), ("--no-wait", "return at once")),
    "config show": (("", ""), ("--effective", "with all defaults")),
    "config check": (("", "before a reload"),),
    "config path": (("", ""),),
}


def add_examples(app: typer.Typer, path: str = "") -> None:
    """Gives each command that has no epilog the lines of the table."""
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        command.epilog = command.epilog or _epilog(f"{path}{name}")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.epilog = _epilog(str(group.name)) if group.name in EXAMPLES else None
            add_examples(group.typer_instance, f"{path}{group.name} ")


def _epilog(path: str) -> str | None:
    lines = [(f"rlmctl {path} {behind}".rstrip(), told) for behind, told in EXAMPLES.get(path, ())]
    width = max((len(line) for line, _ in lines), default=0)
    shown = [f"  {line:{width}}  {told}".rstrip() for line, told in lines]
    return "\n".join(["\b", "For example:", *shown]) if shown else None
