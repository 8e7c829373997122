"""What a host turned out to do: its speed as tokens come, and what it took. For people; the scheduler has its own pace.

Speeds are kept across restarts (``Meters``), with the scheduler's pace, so that the first batch after a start is handed
out as well as the last before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from rlmd.pool.calibration import Calibration
from rlmd.providers.base import Usage

#: Weight of the newest reply.
WEIGHT = 0.2

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Meter:
    """Speeds are tokens a second; ``first_token`` seconds from sending to the first token; ``energy`` watt-hours, and
    dollars that these (``energy_cost``) and the providers (``money``) cost, since the daemon's start."""

    output_speed: float | None = None
    prompt_speed: float | None = None
    first_token: float | None = None
    energy: float = 0.0
    energy_cost: float = 0.0
    money: float = 0.0

    def replied(self, usage: Usage, first_token: float | None, seconds: float) -> None:
        """After a whole reply."""
        if first_token is None or usage.estimated:
            return
        self.first_token = _mixed(self.first_token, first_token)
        if first_token > 0:
            self.prompt_speed = _mixed(self.prompt_speed, usage.prompt_tokens / first_token)
        if seconds > first_token:
            self.output_speed = _mixed(self.output_speed, usage.completion_tokens / (seconds - first_token))


def _mixed(known: float | None, sample: float) -> float:
    return sample if known is None else known + WEIGHT * (sample - known)


@dataclass(frozen=True, slots=True)
class Learned:
    """Of one host: the scheduler's seconds a unit by model, and its speeds."""

    pace: Mapping[str, float]
    output_speed: float | None = None
    prompt_speed: float | None = None
    first_token: float | None = None
    #: What ``host/calibrate`` measured, by model.
    calibrated: Mapping[str, Calibration] = field(default_factory=dict)
    #: Of its models' weights, as its server told them last: what the cache holds is found while it sleeps.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: Tokens up to which a model reads well, as an evaluation found them.
    useful: Mapping[str, int] = field(default_factory=dict)


def read_learned(file: Path) -> dict[str, Learned]:
    """By host; nothing when the file is missing or not ours: it is learned again."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {
            str(name): Learned(
                {str(model): float(pace) for model, pace in one["pace"].items() if 0 < float(pace) < 1e6},
                digests={str(model): str(digest) for model, digest in one.get("digests", {}).items()},
                useful={str(model): int(tokens) for model, tokens in one.get("useful", {}).items() if int(tokens) > 0},
                calibrated={str(model): Calibration(**values) for model, values in one.get("calibrated", {}).items()},
                **{key: float(one[key]) for key in _SPEEDS if one.get(key) is not None},
            )
            for name, one in stored.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("speeds_unreadable", file=str(file))
        return {}


def write_learned(file: Path, learned: Mapping[str, Learned]) -> None:
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_text(json.dumps({name: asdict(one) for name, one in learned.items()}), encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        log.warning("speeds_unwritten", file=str(file), error=type(error).__name__)


_SPEEDS = ("output_speed", "prompt_speed", "first_token")
