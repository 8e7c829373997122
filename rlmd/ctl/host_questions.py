"""The hosts of ``rlmctl setup``, asked for and looked at: servers of one's own, then the cloud, if a person agrees."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rlmd.config import HostSettings, Paths, Trust
from rlmd.ctl.asking import Asker
from rlmd.ctl.proposing import cheapest
from rlmd.ctl.setup_hosts import CLOUDS, HERE, Caller, NewHost, name_of, probe, usable
from rlmd.ctl.setup_keys import Key, ask_for_key, key_file, lent
from rlmd.ctl.terminal import Output, one_line
from rlmd.errors import HostRefused, InvalidParams, NotFound, RlmdError
from rlmd.validation import nearest_of
from rlmd.wire.methods import HostProbeResult

#: Models of a provider that are listed for a person to choose from.
_LISTED = 20
Prices = tuple[tuple[str, tuple[float, float]], ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What the command line said already. ``day`` and ``month``: dollars."""

    addresses: tuple[str, ...] = ()
    cloud: str | None = None
    cloud_model: str | None = None
    key: Key = field(default_factory=Key)
    day: float | None = None
    month: float | None = None


class HostQuestions:
    """``new`` has what was found.

    Args:
        earlier: Name → URL of the hosts that an earlier setup wrote.
        others: The hosts of all other files of the settings.
    """

    def __init__(
        self,
        ask: Asker,
        call: Caller,
        output: Output,
        paths: Paths,
        said: Said,
        earlier: Mapping[str, str],
        others: Mapping[str, HostSettings],
    ) -> None:
        self._ask, self._call, self._output, self._paths, self._said = ask, call, output, paths, said
        self._earlier, self._others = earlier, others
        self.new: list[NewHost] = []

    @property
    def known(self) -> list[str]:
        """Names of hosts that were there before."""
        return [*self._others, *self._earlier]

    # ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

    def ask_for_hosts(self) -> None:
        for address in self._said.addresses:
            self._look_at(address)
        if self._said.addresses:
            return
        known = self.known
        if known:
            self._output.remark(f"Configured: {', '.join(known)}.", None)
        question = "Addresses of your model servers, such as m40 rtx:8080 (Enter: this machine)"
        if known:
            question = "Addresses of more servers of yours (Enter: none)"
        while given := self._ask.text(question).replace(",", " ").split():
            for address in given:
                self._look_at(address)
            question = "More of them (Enter: none)"
        if not known and not self.new:
            self._look_here()

    def _look_here(self) -> None:
        """No address was given: an Ollama on this machine, if there is one."""
        try:
            self._take(self._probe(HERE, Key()))
        except RlmdError as error:
            self._output.remark(f"Nothing on this machine: {error.message}", None)

    def _look_at(self, address: str) -> None:
        try:
            try:
                self._take(self._probe(address, Key()))
            except HostRefused as error:
                self._ask.again(error)
                self._output.remark(f"{address} wants a key.", None)
                self._add_with_key(address)
        except RlmdError as error:
            self._ask.again(error)

    def _take(
        self,
        found: HostProbeResult,
        key: Key = Key(),  # noqa: B008  frozen
        *,
        models: tuple[str, ...] = (),
        cloud: bool = False,
        prices: Prices = (),
    ) -> None:
        """Takes a server up that was asked. Raises ``NotFound`` when it has no model that chats."""
        if known := self._configured_at(found.url):
            self._output.remark(f"{found.url} is configured already, as {known}.", "yellow")
            return
        name = self._name(found.url)
        trust = self._trust(found, cloud=cloud)
        host = NewHost(name, found, trust, key, usable(name, found, trust, models), prices)
        self._tell(host, chosen=bool(models))
        self.new = [one for one in self.new if one.name != name] + [host]

    def _trust(self, found: HostProbeResult, *, cloud: bool) -> Trust:
        if cloud or found.trust == "mine":
            return found.trust
        question = f"{found.url} is not at a private address, or passes prompts on. Is all behind it yours, so that "
        return "mine" if self._ask.yes(question + "private text may go there?", otherwise=False) else "cloud"

    def _tell(self, host: NewHost, *, chosen: bool) -> None:
        probe = host.probe
        software = " ".join(filter(None, (probe.software or probe.provider, probe.version)))
        whose = "yours" if host.trust == "mine" else "cloud: private text is not sent there"
        self._output.print(f"{host.name}  {probe.url}  {one_line(software, 60)}, {whose}")
        offered = {offer.model: offer for offer in host.offers}
        for model in probe.models if not chosen else ():
            unused = "run elsewhere by this server, not used" if model.remote else "embedding, not used"
            told = offered[model.name].told() if model.name in offered else unused
            self._output.print(f"    {one_line(model.name, 60)}  {told}")
        for offer in host.offers if chosen else ():
            self._output.print(f"    {one_line(offer.model, 60)}  {offer.told()}")
        for note in probe.notes:
            self._output.remark(f"    {one_line(note)}", "yellow")

    def _name(self, url: str) -> str:
        """What the host there is called: as an earlier setup did, else by its machine's name."""
        before = next((name for name, its in self._earlier.items() if its == url), None)
        return before or name_of(url, [*self.known, *(host.name for host in self.new)])

    def _configured_at(self, url: str) -> str | None:
        return next((name for name, host in self._others.items() if host.url.rstrip("/") == url), None)

    # ── the cloud ───────────────────────────────────────────────────────────────────────────────────────────

    def ask_for_clouds(self) -> None:
        if self._said.cloud is not None:
            self._ask_for_cloud(self._said.cloud)
            return
        question = "May texts that are not private also go to a cloud provider, for money?"
        while self._ask.yes(question, otherwise=False):
            self._ask_for_cloud(self._ask.text(f"Which: {', '.join(CLOUDS)}, or a URL"))
            question = "Another one?"

    def _ask_for_cloud(self, given: str) -> None:
        url = CLOUDS.get(given.lower(), given)
        try:
            if "//" not in url:
                near = nearest_of(given.lower(), CLOUDS)
                hint = f"Did you mean {near}?" if near else f"Known by name: {', '.join(CLOUDS)}."
                raise InvalidParams(f"{given[:100]!r} is no provider and no URL.", hint=hint)
            self._add_with_key(url, cloud=True)
        except RlmdError as error:
            self._ask.again(error)

    def _add_with_key(self, url: str, *, cloud: bool = False) -> None:
        name = self._name(url if "//" in url else f"//{url}")
        if (answered := self._ask_with_key(url, name)) is None:
            return
        found, key = answered
        models, prices = self._ask_for_models(found, name) if cloud or found.trust == "cloud" else ((), ())
        self._take(found, key, models=models, cloud=cloud, prices=prices)

    def _ask_with_key(self, url: str, name: str) -> tuple[HostProbeResult, Key] | None:
        """Asks for the key until the server takes it, or the person gives up."""
        given = self._said.key if self._said.key.settings else None
        while True:
            key = given or ask_for_key(self._ask, name, self._paths)
            try:
                with lent(key, self._paths) as known:
                    found = self._probe(url, known)
            except RlmdError as error:
                self._ask.again(error)
                if given or not self._ask.yes("Try another key?", otherwise=True):
                    return None
            else:
                return found, replace(key, file=str(key_file(self._paths, name))) if key.typed else key

    def _probe(self, address: str, key: Key) -> HostProbeResult:
        self._output.remark(f"looking at {one_line(address.rpartition('@')[2], 80)} …")
        return self._call(lambda client: probe(client, address, key))

    def _ask_for_models(self, found: HostProbeResult, name: str) -> tuple[tuple[str, ...], Prices]:
        """Which model of a provider, and what it costs where nobody knows."""
        offers = {offer.model: offer for offer in usable(name, found, "cloud")}
        first = cheapest(offers.values())
        for offer in list(offers.values())[:_LISTED] if self._said.cloud_model is None else ():
            self._output.print(f"    {one_line(offer.model, 60)}  {offer.told()}")
        if len(offers) > _LISTED and self._said.cloud_model is None:
            self._output.print(f"    … {len(offers) - _LISTED} more")
        while True:
            model = self._said.cloud_model or self._ask.text("Which model", otherwise=first.model if first else "")
            if model in offers:
                break
            near = nearest_of(model, offers)
            missing = NotFound(f"{name} serves no model {model[:100]!r}.", hint=f"Did you mean {near}?" if near else "")
            if self._said.cloud_model is not None:
                raise missing
            self._ask.again(missing)
        if offers[model].price is not None or found.trust == "mine":
            return (model,), ()
        price = self._ask_for_price(model)
        return (model,), ((model, price),) if price else ()

    def _ask_for_price(self, model: str) -> tuple[float, float] | None:
        question = f"What {model} costs: dollars a million tokens of prompt and of reply, as 0.15 0.60 (Enter: unknown)"
        while given := self._ask.text(question).replace(",", " ").replace("$", " ").split():
            with contextlib.suppress(ValueError):
                numbers = [float(one) for one in given]
                if len(numbers) == 2 and all(0 <= one < 1e6 for one in numbers):
                    return numbers[0], numbers[1]
            self._ask.again(InvalidParams("Two numbers are needed: of the prompt and of the reply."))
        self._output.remark("Where there is a budget, a model of unknown price is not used.", "yellow")
        return None
