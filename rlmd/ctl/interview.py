"""The interview of ``rlmctl setup``, in its order: hosts, the cloud, roles, money. Changes nothing; gives a plan.

What was said on the command line is not asked again; where nobody is there to be asked, the defaults are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmd.config import Paths
from rlmd.ctl import setup_file
from rlmd.ctl.asking import Asker
from rlmd.ctl.host_questions import HostQuestions, Said
from rlmd.ctl.proposing import Offer, offers_of_configured
from rlmd.ctl.role_questions import RoleQuestions, roles_of
from rlmd.ctl.setup_hosts import Caller, NewHost
from rlmd.ctl.terminal import Output, one_line
from rlmd.errors import Unavailable

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, and which hosts are worth measuring, with the model. ``keys``: file → key."""

    text: str
    keys: Mapping[Path, str] = field(default_factory=dict, repr=False)
    measure: tuple[tuple[str, str], ...] = ()


def interview(ask: Asker, call: Caller, output: Output, paths: Paths, said: Said) -> Plan:
    """Asks everything.

    Raises:
        Unavailable: There is no host to write down.
        ConfigInvalid: The settings that are there are wrong, or would be with these.
    """
    earlier, others = setup_file.earlier(paths), setup_file.settings_without(paths)
    hosts = dict(earlier.get("hosts", {}))
    urls = {name: str(host.get("url", "")).rstrip("/") for name, host in hosts.items()}
    questions = HostQuestions(ask, call, output, paths, said, urls, others.hosts)
    questions.ask_for_hosts()
    questions.ask_for_clouds()
    offers = _offers(call, questions)
    table: Table = {
        **earlier,
        "hosts": hosts | {new.name: new.section(hosts.get(new.name, {})) for new in questions.new},
    }
    remarks = _remarks(questions.new)
    further = RoleQuestions(ask, output, offers, earlier)
    if (roles := further.roles(others.roles)) is None:
        table.pop("roles", None)
    else:
        table["roles"] = {"root": list(roles.root), "sub": list(roles.sub)}
        remarks |= further.remarks(roles)
    if budget := further.budget(others.budget, {"day": said.day, "month": said.month}):
        table["budget"] = {**earlier.get("budget", {}), **budget}
    text = setup_file.text_of(table, remarks)
    setup_file.check(paths, text)
    keys = {Path(new.key.file): new.key.typed for new in questions.new if new.key.typed and new.key.file}
    return Plan(text, keys, _worth_measuring(table, questions.new))


def _offers(call: Caller, questions: HostQuestions) -> list[Offer]:
    """Of the new hosts, and of those that were configured before, as the daemon knows them."""
    found = [offer for host in questions.new for offer in host.offers]
    if known := set(questions.known) - {host.name for host in questions.new}:
        listed = call(lambda client: client.call("host/list")).hosts
        found += [offer for host in listed if host.name in known for offer in offers_of_configured(host)]
    if not found:
        raise Unavailable(
            "There is no host, so there is nothing to set up; questions are answered by quotes meanwhile.",
            hint="Start a server, such as Ollama, and give its address: rlmctl setup m40:11434",
        )
    return found


def _remarks(new: Sequence[NewHost]) -> dict[tuple[str, ...], str]:
    """What is said in the file above each host and model."""
    found: dict[tuple[str, ...], str] = {}
    for host in new:
        software = " ".join(filter(None, (host.probe.software or host.probe.provider, host.probe.version)))
        found["hosts", host.name] = f"{one_line(software, 80)}\n{_MORE}"
        found |= {("hosts", host.name, "models", offer.model): offer.told() for offer in host.offers}
    return found


_MORE = "More that can be said of a host: watts, wake, suspend, keep_loaded_seconds, slots (measured if left out)."


def _worth_measuring(table: Table, new: Sequence[NewHost]) -> tuple[tuple[str, str], ...]:
    """The hosts of yours that are new, each with the model that its roles name, else its first."""
    roles = roles_of(table)
    named = (*roles.root, *roles.sub) if roles else ()
    found = []
    for host in new:
        own = [offer for offer in host.offers if offer.trust == "mine"]
        best = next((offer for offer in own if offer.candidate in named), next(iter(own), None))
        if best is not None:
            found.append((host.name, best.model))
    return tuple(found)
