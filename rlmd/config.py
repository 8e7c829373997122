"""Settings and paths: read once at start, checked whole, handed down.

Sources, later ones win: defaults, ``~/.config/rlmd/config.toml``, ``config.d/*.toml`` in name order.
An unknown key is refused with the nearest valid one. Only keys that do something exist.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Trust = Literal["mine", "cloud"]
ProviderKind = Literal["ollama", "openai"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Section):
    """``window`` is the window served, in tokens (Ollama: the one ``num_ctx`` that is always sent)."""

    window: int = Field(8192, ge=256)
    #: Tokens up to which the model answers well; by default half of the window.
    useful_window: int | None = Field(None, ge=128)
    max_tokens: int = Field(1024, ge=1)
    temperature: float = Field(0.0, ge=0)


class HostSettings(Section):
    url: str
    provider: ProviderKind
    slots: int = Field(1, ge=1, le=512)
    #: Unset: "mine" for loopback and private addresses with a model that is not remote, else "cloud".
    trust: Trust | None = None
    #: Where the key is: an environment variable's name or a file; never the key itself.
    api_key_env: str | None = None
    api_key_file: str | None = None
    models: dict[str, ModelSettings] = Field(default_factory=dict)


class RoleSettings(Section):
    """Ordered candidates, each ``host/model``. Empty: every model of every host, in the order of the config."""

    root: tuple[str, ...] = ()
    sub: tuple[str, ...] = ()


class LimitSettings(Section):
    turns: int = Field(30, ge=1)
    sub_queries: int = Field(2000, ge=0)
    seconds: float = Field(3600.0, gt=0)
    consecutive_errors: int = Field(5, ge=1)


class ReplSettings(Section):
    cell_seconds: float = Field(120.0, gt=0, description="A cell's own time; waiting for sub-queries does not count")
    memory_bytes: int = Field(4 << 30, ge=256 << 20)
    output_chars: int = Field(20_000, ge=500)
    max_workers: int = Field(16, ge=1)
    spare_workers: int = Field(1, ge=0)
    idle_seconds: float = Field(1800.0, gt=0, description="A named session's worker ends after this long unused")
    bubblewrap: bool = True


class CacheSettings(Section):
    bytes: int = Field(2 << 30, ge=1 << 20)


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    hosts: dict[str, HostSettings] = Field(default_factory=dict)
    roles: RoleSettings = RoleSettings()
    limits: LimitSettings = LimitSettings()
    repl: ReplSettings = ReplSettings()
    cache: CacheSettings = CacheSettings()
    log: LogSettings = LogSettings()
