"""What can be set: one model a section of the config, from which docs/configuration.md is made.

An unknown key is refused with the nearest valid one. Only keys that do something exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Trust = Literal["mine", "cloud"]
ProviderKind = Literal["ollama", "openai", "anthropic"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PriceSettings(Section):
    """What a model costs; goes before the table that rlmd has of well-known providers. Dollars a million tokens."""

    prompt: float = Field(ge=0, description="Of the prompt")
    completion: float = Field(ge=0, description="Of the reply, its thinking included")
    cached: float | None = Field(None, ge=0, description="Of prompt tokens read from the provider's cache")
    cache_write: float | None = Field(None, ge=0, description="Of prompt tokens put into the provider's cache")


class ModelSettings(Section):
    """One model of a host. Without any, a host offers every chat model that it lists, with the window that it tells."""

    window: int = Field(
        8192,
        ge=256,
        description="Tokens of prompt and reply together; for Ollama the one `num_ctx` that is always sent",
    )
    useful_window: int | None = Field(
        None, ge=128, description="Tokens up to which the model answers well; by default half of the window"
    )
    max_tokens: int = Field(1024, ge=1, description="A reply's tokens at most; a longer one is cut and does not count")
    temperature: float = Field(0.0, ge=0, description="0 gives the same answer again; above it answers vary")
    price: PriceSettings | None = Field(None, description="What it costs, where rlmd does not know")


class HostSettings(Section):
    """A server that completes prompts. `rlmctl host add NAME URL` asks it what it is and writes this."""

    url: str = Field(description="Where it listens, such as `http://m40:11434`")
    provider: ProviderKind = Field(description="Its protocol: Ollama's own, any OpenAI-compatible one, or Anthropic's")
    slots: int = Field(1, ge=1, le=512, description="Requests that it may hold at a time")
    trust: Trust | None = Field(
        None,
        description="Private text goes to `mine` only; unset: mine for Ollama, llama.cpp and vLLM at a loopback or"
        " private address, with a model that runs there, else cloud",
    )
    api_key_env: str | None = Field(None, description="Name of the environment variable that has the key")
    api_key_file: str | None = Field(
        None, description="File that has the key; a relative one is below systemd's credentials folder"
    )
    api_key_command: tuple[str, ...] = Field(
        (),
        description="Command that prints the key, such as `['pass', 'show', 'deepseek']`; run at each start,"
        " and again by `host resume` when it failed",
    )
    wake: tuple[str, ...] = Field(
        (),
        description="Command that wakes its machine when work waits, such as `['wakeonlan', '38:d5:47:aa:bb:cc']`",
    )
    boot_seconds: float = Field(180.0, gt=0, description="How long it may take from the wake to the server's answer")
    suspend: tuple[str, ...] = Field(
        (), description="Command that sends its machine to sleep, such as `['ssh', 'm40', 'systemctl', 'suspend']`"
    )
    idle_seconds: float = Field(900.0, gt=0, description="Without work for so long, `suspend` is run")
    keep_loaded_seconds: float = Field(1800.0, ge=0, description="Ollama unloads a model that is unused for so long")
    watts: float | None = Field(None, ge=0, description="What the machine draws while it works; for receipts")
    models: dict[str, ModelSettings] = Field(default_factory=dict, description="Those to use, by name")

    @field_validator("suspend")
    @classmethod
    def _can_be_woken(cls, given: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if given and not info.data.get("wake"):
            raise ValueError("a host that is sent to sleep needs a command that wakes it: set wake too")
        return given


class RoleSettings(Section):
    """Who may take which part, in order of preference, each `host/model`. Empty: every model of every host."""

    root: tuple[str, ...] = Field((), description="Candidates that lead a run and write its cells")
    sub: tuple[str, ...] = Field((), description="Candidates that answer the cells' sub-queries")


class LimitSettings(Section):
    """A run's purse; each ask may bring its own. A limit ends a run with the best answer so far, and says so."""

    turns: int = Field(30, ge=1, description="Completions of the root, those of child runs and last words included")
    sub_queries: int = Field(2000, ge=0, description="Completions that cells ask for; those from the cache are free")
    tokens: int | None = Field(None, ge=1, description="Of all prompts and replies; without it as many as it takes")
    depth: int = Field(1, ge=0, le=8, description="Levels of child runs (`rlm_query`) below a run; 0 allows none")
    seconds: float = Field(
        3600.0, gt=0, description="Time on the clock; a last word may take a tenth of it more, and two minutes at most"
    )
    consecutive_errors: int = Field(5, ge=1, description="Cells in a row that end in an error")
    waiting: float = Field(
        600.0,
        ge=0,
        description="Seconds in all for which it waits for a host, while all that may serve it are down, asleep or"
        " paused; they do not count as time on the clock",
    )


class ConfirmSettings(Section):
    """What a run may take before somebody is asked: it waits until `rlmctl run confirm`, or your answer on the
    terminal. What the cache holds does not count."""

    seconds: float = Field(900.0, gt=0, description="Time that it has taken and would take; `inf`: never asks")
    money: float = Field(1.0, ge=0, description="Dollars that it has spent and would spend")
    sub_queries: int = Field(1000, ge=0, description="Completions that its cells have asked for and would ask for")


class ReplSettings(Section):
    """The caged processes that run the cells."""

    cell_seconds: float = Field(120.0, gt=0, description="A cell's own time; waiting for sub-queries does not count")
    memory_bytes: int = Field(4 << 30, ge=256 << 20, description="Address space of a worker")
    total_memory_bytes: int | None = Field(
        None, ge=256 << 20, description="Memory of all workers together; by default three quarters of the machine's"
    )
    output_chars: int = Field(20_000, ge=500, description="Characters kept of a cell's output, head and tail")
    max_workers: int = Field(
        16, ge=1, description="Workers in use at once; for each level of `limits.depth` one is kept for child runs"
    )
    spare_workers: int = Field(1, ge=0, description="Workers kept warm beside those in use")
    idle_seconds: float = Field(1800.0, gt=0, description="A named session's worker ends after this long unused")
    bubblewrap: bool = Field(True, description="Use bubblewrap where it works")
    environment: Path | None = Field(
        None, description="A virtual environment (venv, uv, conda) whose packages, such as numpy, cells may import"
    )


class FamilySettings(Section):
    """Models that need other words or more room than others; yours are looked at before the built-in ones."""

    models: str = Field(description="Regular expression that is looked for in a model's name")
    note: str = Field("", max_length=4000, description="Ends the system prompt of such a root")
    room: float = Field(1.0, ge=1, le=64, description="A reply may take so many times the model's `max_tokens`")
    share: float = Field(0.25, gt=0, le=0.6, description="But no more than this share of the window")

    @field_validator("models")
    @classmethod
    def _is_pattern(cls, given: str) -> str:
        try:
            re.compile(given)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return given


class PromptSettings(Section):
    """What roots are told, where the built-in words do not suit yours. A journal names the version that was used."""

    system: str | None = Field(
        None,
        min_length=1,
        max_length=20_000,
        description="Replaces the system prompt; `$subs`, `$whole`, `$output_chars`, `$cell_seconds` are filled in",
    )
    note: str = Field("", max_length=4000, description="Ends the system prompt of every root")
    families: dict[str, FamilySettings] = Field(default_factory=dict, description="Families of models by name")

    @field_validator("system")
    @classmethod
    def _is_template(cls, given: str | None) -> str | None:
        names = dict.fromkeys(("subs", "whole", "output_chars", "cell_seconds"), "")
        try:
            Template(given or "").substitute(names)
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is not filled in; write $$ for a dollar sign") from None
        except ValueError as error:
            raise ValueError(f"{error}; write $$ for a dollar sign") from None
        return given


class CacheSettings(Section):
    """Finished sub-queries on disk; deleting the folder costs only time."""

    bytes: int = Field(2 << 30, ge=1 << 20, description="Size at which the oldest are dropped")


class RetentionSettings(Section):
    """How long what nobody uses is kept. A named context stays until it is dropped."""

    implicit_days: float = Field(30.0, gt=0, description="A context without a name of its own goes when unused so long")
    revisions: int = Field(
        10, ge=1, description="Revisions of a context that are kept; older ones while a run names them"
    )
    run_days: float = Field(
        365.0, gt=0, description="A run goes so long after its end, with its journal; those of a named session stay"
    )
    run_bytes: int = Field(8 << 30, ge=1 << 20, description="Size of all runs above which the oldest go")
    index_days: float = Field(30.0, gt=0, description="A search index goes when unused so long; it is made anew")


class ConverterSettings(Section):
    """A command that makes text of a format: it reads the file from standard input and writes UTF-8."""

    suffixes: tuple[str, ...] = Field(description="Of the files that it is for, such as `.docx`")
    command: tuple[str, ...] = Field(
        min_length=1, description='Program and arguments, such as `["pandoc", "-f", "docx", "-t", "plain"]`'
    )


class PrivacySettings(Section):
    """What is private without being marked by hand: `context load --private` and Emacs mark single texts."""

    private: tuple[str, ...] = Field(
        (),
        description="Patterns of paths, as in .gitignore (`~/mail/`, `*.gpg`): a context with one of them is private",
    )
    ephemeral: tuple[str, ...] = Field(
        (), description="The same: a context with one of them is private, and in memory alone, never on disk"
    )


class BudgetSettings(Section):
    """What may be spent on hosts that cost money, in dollars. The most that a request may cost is set aside before it
    is sent; at the end of a limit, hosts that cost nothing do the rest. Without a limit, none is kept."""

    run: float | None = Field(None, ge=0, description="By one run and its children")
    day: float | None = Field(None, ge=0, description="In one day of the user's time zone")
    month: float | None = Field(None, ge=0, description="In one calendar month")
    ask: bool = Field(False, description="Spend for a run only after `rlmctl budget allow RUN`")
    overflow_after: float = Field(
        60.0, ge=0, description="Seconds that hosts of mine would need for what waits, above which cloud hosts help"
    )
    price_per_kwh: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Dollars that a kilowatt-hour costs: with the hosts' `watts` it makes the price of energy in"
        " estimates and receipts, which is not counted against these limits",
    )
    time_zone: str | None = Field(None, description="Such as `Europe/Berlin`; by default the system's")

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in available_timezones():
            raise ValueError("no time zone is called that; Europe/Berlin would be one")
        return name


class FinishSettings(Section):
    """What happens when a run has ended that took long: for nights, and for whoever does something else meanwhile."""

    after: float = Field(60.0, ge=0, description="Seconds that a run must have taken")
    notify: bool = Field(
        False, description="Tell it on the desktop: how it ended, and of which contexts, if not private"
    )
    command: tuple[str, ...] = Field(
        (),
        description="Run this, with `RLMD_RUN_ID`, `RLMD_OUTCOME`, `RLMD_SECONDS`, `RLMD_PRIVATE` and `RLMD_CONTEXTS`"
        " in its environment; no text of yours is in it",
    )


class PowerSettings(Section):
    """The machine that rlmd itself is on. Hosts have `wake` and `suspend`."""

    keep_awake: bool = Field(
        False,
        description="While a run is at work, or has waited for a host for no more than ten minutes, the machine does"
        " not go to sleep by itself",
    )


class LogSettings(Section):
    """Sizes, ids and names only, at every level: never text of yours, prompts or keys."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged")


class Settings(Section):
    hosts: dict[str, HostSettings] = Field(default_factory=dict)
    roles: RoleSettings = RoleSettings()
    limits: LimitSettings = LimitSettings()
    confirm: ConfirmSettings = ConfirmSettings()
    repl: ReplSettings = ReplSettings()
    cache: CacheSettings = CacheSettings()
    converters: dict[str, ConverterSettings] = Field(default_factory=dict)
    retention: RetentionSettings = RetentionSettings()
    privacy: PrivacySettings = PrivacySettings()
    prompts: PromptSettings = PromptSettings()
    budget: BudgetSettings = BudgetSettings()
    finish: FinishSettings = FinishSettings()
    power: PowerSettings = PowerSettings()
    log: LogSettings = LogSettings()
