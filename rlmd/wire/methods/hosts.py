"""Hosts: what they are and do, adding and removing them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializationInfo, field_serializer

from rlmd.wire.methods.base import Done, Method, NameParams, Nothing, Params, Result, state_for

HostState = Literal["ok", "busy", "asleep", "waking", "down", "paused", "unknown"]
#: States that protocol 1 lacks.
_DOWN: dict[HostState, HostState] = {"asleep": "down", "waking": "down"}


class HostModel(Result):
    name: str
    window: int
    useful_window: int
    digest: str | None = None


class HostMeter(Result):
    """Tokens a second of replies and prompts, seconds to the first token; watt-hours, dollars that these cost
    (``energy_cost``) and dollars spent at providers, since the start."""

    output_speed: float | None = None
    prompt_speed: float | None = None
    first_token: float | None = None
    energy: float = 0.0
    energy_cost: float = 0.0
    money: float = 0.0


class HostInfo(Result):
    """``state``: ok, busy (all slots used), asleep (woken when work
    waits), waking, down (``retry_in`` seconds), paused, unknown (not asked yet).
    ``resident``: models in its memory, as far as known; ``loading``: one that is on its way there, so that what was
    asked of it takes longer."""

    name: str
    url: str
    provider: str
    trust: Literal["mine", "cloud"]
    state: HostState
    retry_in: float | None
    slots: int
    slots_used: int
    queued: int
    completed: int
    failed: int
    models: tuple[HostModel, ...]
    roles: tuple[str, ...]
    last_error: str | None
    resident: tuple[str, ...] = ()
    loading: str | None = None
    meter: HostMeter = HostMeter()
    foreign: int = Field(0, description="Requests of others that it works on, where its server tells")

    @field_serializer("state")
    def _state(self, state: HostState, info: SerializationInfo) -> HostState:
        return state_for(state, info, _DOWN)


class HostListResult(Result):
    """``drain``: seconds that the hosts need for what waits; null when there is no telling. ``cache_hits`` and
    ``completed``: sub-queries since the start."""

    hosts: tuple[HostInfo, ...]
    queued: int = 0
    in_flight: int = 0
    drain: float | None = None
    cache_hits: int = 0
    completed: int = 0


class HostSubscribeParams(Params):
    """One subscription a connection: a second takes the place of the first. ``host/changed`` comes when something
    differs, ``seconds`` apart at least, and brings all hosts; what counts down (``retry_in``) does so without one."""

    on: bool = Field(True, description="false ends it")
    seconds: float = Field(0.5, ge=0.1, le=3600)


class HostResult(Result):
    host: HostInfo


class HostCalibrateParams(Params):
    """Measures the host while it does nothing else; ``model``: of its models only this one."""

    name: str
    model: str | None = None
    useful_window: int | None = Field(
        None,
        ge=128,
        description="Tokens up to which the model reads well, as an evaluation found them: remembered, and nothing is"
        " measured. What the config says goes before it",
    )


class HostCalibration(Result):
    """Tokens a second: of one prompt, of one reply alone, of all replies when ``slots`` are asked at once.
    ``load_seconds`` is null when the model was in memory already; ``window`` is what the server says it serves."""

    model: str
    prompt_speed: float
    output_speed: float
    total_speed: float
    slots: int
    first_token: float
    load_seconds: float | None = None
    window: int | None = None


class HostCalibrateResult(Result):
    host: HostInfo
    calibrations: tuple[HostCalibration, ...]


class HostAddParams(Params):
    """Asks the server at ``url`` what it is and writes ``config.d/host-NAME.toml``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    url: str
    models: tuple[str, ...] = Field((), description="Of those served; by default every chat model")
    slots: int | None = Field(None, ge=1, le=512)
    window: int | None = Field(None, ge=256)
    trust: Literal["mine", "cloud"] | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    api_key_command: tuple[str, ...] = Field((), description="Prints the key; its words are not a shell's")


class HostAddResult(Result):
    host: HostInfo
    file: str
    notes: tuple[str, ...]


class HostProbeParams(Params):
    """Asks the server at ``url`` what it is, and changes nothing. The key is named as in the settings of a host."""

    url: str
    api_key_env: str | None = None
    api_key_file: str | None = None
    api_key_command: tuple[str, ...] = ()


class ProbedModel(Result):
    """``parameters`` as the server tells them (32.8B), ``bytes`` of its weights; ``remote``: the server sends it
    elsewhere; ``price``: dollars a million tokens of prompt and reply, where it is known."""

    name: str
    window: int
    parameters: str | None = None
    bytes: int | None = None
    chat: bool = True
    vision: bool = False
    remote: bool = False
    resident: bool = False
    price: tuple[float, float] | None = None


class HostProbeResult(Result):
    """``trust`` is what a host there would have; ``address`` the private one that its name has now, when that is why.
    ``slots`` only where the server tells."""

    url: str
    provider: Literal["ollama", "openai", "anthropic"]
    software: str | None
    version: str | None
    trust: Literal["mine", "cloud"]
    address: str | None
    slots: int | None
    models: tuple[ProbedModel, ...]
    notes: tuple[str, ...]


METHODS = (
    Method("host/list", Nothing, HostListResult, "Lists hosts with state, slots and queue depth."),
    Method("host/probe", HostProbeParams, HostProbeResult, "Asks a server what it is, and changes nothing."),
    Method(
        "host/subscribe",
        HostSubscribeParams,
        HostListResult,
        "Lists hosts, and tells as `host/changed` whenever one differs, as far as the client reads.",
    ),
    Method("host/add", HostAddParams, HostAddResult, "Asks a server what it is and adds it."),
    Method("host/pause", NameParams, HostResult, "Gives a host nothing more; what is under way there goes on."),
    Method("host/resume", NameParams, HostResult, "Gives a paused host work again."),
    Method(
        "host/calibrate",
        HostCalibrateParams,
        HostCalibrateResult,
        "Measures a host's speeds and slots, or remembers a model's useful window.",
    ),
    Method("host/wake", NameParams, HostResult, "Wakes a host's machine now, by its `wake` command."),
    Method("host/remove", NameParams, Done, "Removes a host that host/add wrote."),
)
