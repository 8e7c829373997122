"""``host/*``: who completes prompts; adding one asks it what it is and writes a file of ``config.d``.

A client whose reading may leave the machine changes no hosts: it could make its own server a trusted one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from rlmd.config import HostSettings, ModelSettings, check_settings
from rlmd.errors import ConfigInvalid, Conflict, NotAllowed, NotFound
from rlmd.pool import HostStatus, settings_for, trusted_by_address, trusted_by_lookup
from rlmd.pool.keys import printed_key, read_key
from rlmd.pool.prices import price_of
from rlmd.providers.addresses import checked_url
from rlmd.providers.base import DEFAULT_WINDOW, ServedModel, ServerFacts
from rlmd.providers.detect import detect
from rlmd.tomltext import toml_of
from rlmd.validation import nearest_of
from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Handler
from rlmd.wire.handlers.parts import Parts
from rlmd.wire.handlers.watching import Watching


class HostHandlers:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._watching = Watching(self._all, parts.pool.hosts_changed)

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "host/list": self.list,
            "host/probe": self.probe,
            "host/subscribe": self.subscribe,
            "host/add": self.add,
            "host/pause": self.pause,
            "host/resume": self.resume,
            "host/wake": self.wake,
            "host/calibrate": self.calibrate,
            "host/remove": self.remove,
        }

    async def list(self, _: Connection, __: m.Nothing) -> m.HostListResult:
        await self._parts.pool.find_default_host()
        return self._all()

    async def subscribe(self, client: Connection, params: m.HostSubscribeParams) -> m.HostListResult:
        await self._parts.pool.find_default_host()
        if params.on:
            return self._watching.start(client, params.seconds)
        self._watching.stop(client)
        return self._all()

    def _all(self) -> m.HostListResult:
        now = self._parts.pool.statistics()
        return m.HostListResult(
            hosts=tuple(map(host_info, self._parts.pool.hosts())),
            queued=now.queue.queued,
            in_flight=now.queue.in_flight,
            drain=now.queue.drain,
            cache_hits=now.cache_hits,
            completed=now.completed,
        )

    async def pause(self, client: Connection, params: m.NameParams) -> m.HostResult:
        _refuse_egress(client)
        return m.HostResult(host=host_info(self._parts.pool.pause_host(params.name, paused=True)))

    async def resume(self, client: Connection, params: m.NameParams) -> m.HostResult:
        _refuse_egress(client)
        return m.HostResult(host=host_info(self._parts.pool.pause_host(params.name, paused=False)))

    async def wake(self, client: Connection, params: m.NameParams) -> m.HostResult:
        _refuse_egress(client)
        return m.HostResult(host=host_info(self._parts.pool.wake_host(params.name)))

    async def calibrate(self, client: Connection, params: m.HostCalibrateParams) -> m.HostCalibrateResult:
        _refuse_egress(client)
        if params.useful_window is not None:
            kept = self._parts.pool.keep_useful_window(params.name, params.model, params.useful_window)
            return m.HostCalibrateResult(host=host_info(kept), calibrations=())
        status, found = await self._parts.pool.calibrate_host(params.name, params.model)
        calibrations = tuple(m.HostCalibration.model_validate(one, from_attributes=True) for one in found)
        return m.HostCalibrateResult(host=host_info(status), calibrations=calibrations)

    async def probe(self, client: Connection, params: m.HostProbeParams) -> m.HostProbeResult:
        _refuse_egress(client)
        facts = await detect(params.url, api_key=await _key_of("there", params))
        url = checked_url(params.url)
        address = await trusted_by_lookup(url, facts)
        return m.HostProbeResult(
            url=url,
            provider=settings_for(url, facts).provider,
            software=facts.software,
            version=facts.version,
            trust="mine" if address or trusted_by_address(url, facts) else "cloud",
            address=address,
            slots=facts.slots,
            models=tuple(_probed(url, model) for model in facts.models),
            notes=facts.notes,
        )

    async def add(self, client: Connection, params: m.HostAddParams) -> m.HostAddResult:
        _refuse_egress(client)
        facts = await detect(params.url, api_key=await _key_of(params.name, params))
        _check_models(params, facts)
        address = None if params.trust else await trusted_by_lookup(params.url, facts)
        settings = settings_for(
            params.url,
            facts,
            models=params.models,
            slots=params.slots,
            window=params.window,
            trust="mine" if address else params.trust,
            api_key_env=params.api_key_env,
            api_key_file=params.api_key_file,
            api_key_command=params.api_key_command,
        )
        async with self._parts.current.changing:
            file, status = await self._keep(params.name, settings)
        return m.HostAddResult(host=host_info(status), file=str(file), notes=tuple(_notes(status, facts, address)))

    async def remove(self, client: Connection, params: m.NameParams) -> m.Done:
        _refuse_egress(client)
        async with self._parts.current.changing:
            self._check_removable(params.name)
            self._file(params.name).unlink()
            self._parts.current.take_hosts(self._parts.paths)
            await self._parts.pool.remove_host(params.name)
        return m.Done()

    async def _keep(self, name: str, settings: HostSettings) -> tuple[Path, HostStatus]:
        """In the config and in the pool, or in neither."""
        if name in self._parts.current.settings.hosts:
            raise Conflict(f"There is a host {name} already.", hint=f"rlmctl host remove {name} first.")
        file = await self._write(name, settings)
        try:
            status = await self._parts.pool.add_host(name, settings)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self._parts.current.take_hosts(self._parts.paths)
        return file, status

    def _check_removable(self, name: str) -> None:
        """The host must be one that ``host/add`` wrote, and no role may name it."""
        settings = self._parts.current.settings
        if name not in settings.hosts:
            hint = f"Hosts: {', '.join(settings.hosts)}." if settings.hosts else "No host is configured."
            raise NotFound(f"There is no host {name[:100]!r}.", hint=hint)
        if not self._file(name).is_file():
            files = ", ".join(map(str, self._parts.paths.config_files))
            raise Conflict(
                f"Host {name} was not added by host/add.", hint=f"Take it out of {files}, then `rlmctl daemon reload`."
            )
        for role, candidates in (("root", settings.roles.root), ("sub", settings.roles.sub)):
            if any(candidate.partition("/")[0] == name for candidate in candidates):
                raise Conflict(f"roles.{role} names host {name}.", hint=f"Take it out of roles.{role} in the config.")

    def _file(self, name: str) -> Path:
        return self._parts.paths.config / "config.d" / f"host-{name}.toml"

    async def _write(self, name: str, settings: HostSettings) -> Path:
        """Writes the host's file whole or not at all, and only if all files together are valid with it."""
        file = self._file(name)
        values = {key: value for key, value in settings.model_dump(exclude_none=True).items() if value != ()}
        if "slots" not in settings.model_fields_set:  # to be measured
            del values["slots"]
        for model, chosen in values["models"].items():
            values["models"][model] = _told(chosen)
        text = f"# Written by host/add; removed by host/remove.\n{toml_of({'hosts': {name: values}})}"
        try:
            await asyncio.get_running_loop().run_in_executor(self._parts.threads, _write_atomically, file, text)
        except OSError as error:
            raise ConfigInvalid(f"Cannot write {file}: {error.strerror}.", hint="Check the folder's owner.") from error
        _, problems = check_settings(self._parts.paths)
        if problems:
            file.unlink()
            raise ConfigInvalid(f"{problems[0]}", hint="Nothing was added. Mend the config first: rlmctl config check")
        return file


def host_info(status: HostStatus) -> m.HostInfo:
    return m.HostInfo.model_validate(status, from_attributes=True)


def _refuse_egress(client: Connection) -> None:
    if client.egress:
        raise NotAllowed(
            "This client may not change hosts: what it reads may leave the machine.",
            hint="Use rlmctl host in a terminal.",
        )


async def _key_of(name: str, params: m.HostAddParams | m.HostProbeParams) -> SecretStr | None:
    """Enough of the settings to have the key. Raises ``ConfigInvalid`` when it is not to be had."""
    bare = HostSettings(
        url=params.url,
        provider="openai",
        api_key_env=params.api_key_env,
        api_key_file=params.api_key_file,
        api_key_command=params.api_key_command,
    )
    key = read_key(name, bare, os.environ)
    if key is None and bare.api_key_command:
        key = await printed_key(name, bare.api_key_command, os.environ)
    return key


def _probed(url: str, model: ServedModel) -> m.ProbedModel:
    known = price_of(url, model.name, None, datetime.now(UTC).date())
    return m.ProbedModel(
        name=model.name,
        window=max(256, model.window or DEFAULT_WINDOW),
        parameters=model.parameters,
        bytes=model.bytes,
        chat=model.chat,
        vision=model.vision,
        remote=model.remote,
        resident=model.resident,
        price=model.price or ((known.band.prompt, known.band.completion) if known else None),
    )


def _check_models(params: m.HostAddParams, facts: ServerFacts) -> None:
    served = [model.name for model in facts.models]
    for wanted in params.models:
        if wanted not in served and f"{wanted}:latest" not in served:
            near = nearest_of(wanted, served)
            hint = f"Did you mean {near}?" if near else f"It serves: {', '.join(served[:20]) or 'nothing'}."
            raise NotFound(f"{params.name} serves no model {wanted[:100]!r}.", hint=hint)


def _told(chosen: dict[str, object]) -> dict[str, object]:
    """Only what differs from the defaults, and the window always: it decides what is sent."""
    defaults = ModelSettings().model_dump()
    return {key: value for key, value in chosen.items() if key == "window" or value != defaults[key]}


def _notes(status: HostStatus, facts: ServerFacts, address: str | None) -> list[str]:
    notes = list(facts.notes)
    if address:
        notes.append(f"It is at {address}, a private address, so it is taken for yours; --trust cloud says otherwise.")
    if not status.models:
        notes.append("It lists no model that chats; pull one, or name one with --model.")
    if status.trust == "cloud":
        notes.append("Private contexts are not sent there; --trust mine says that the machine is yours.")
    return notes


def _write_atomically(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
