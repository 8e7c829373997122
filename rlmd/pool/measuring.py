"""Which models of a host can be measured or told of, and the measuring, during which it gets no work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from rlmd.errors import Conflict, InvalidParams, NotFound, Unavailable
from rlmd.pool.calibration import Calibration, calibrated
from rlmd.pool.host import Host, OfferedModel


def to_measure(host: Host, model: str | None) -> list[str]:
    """The models of a host, or the one that is named.

    Raises:
        NotFound, Unavailable: no such model, or the host does not answer.
        Conflict: its requests cost money, or it is being measured already.
    """
    if not host.ready:
        raise Unavailable(f"Host {host.name} does not answer.", hint=host.last_error or "")
    if host.measured:
        raise Conflict(f"Host {host.name} is being measured already.")
    mine = [each for each, offered in host.models().items() if offered.trust == "mine"]
    if not mine:
        raise Conflict(
            f"Host {host.name} is not yours: what is asked there costs money, and others ask it too.",
            hint="Its speed is learned as it works.",
        )
    wanted = [each for each in mine if model in (None, each, each.removesuffix(":latest"))]
    if not wanted:
        raise NotFound(
            f"Host {host.name} offers no model {str(model)[:100]!r}.", hint=f"Its models: {', '.join(mine)}."
        )
    return wanted


async def measured(
    host: Host, names: list[str], tell: Callable[[], None], idle: Callable[[str], Awaitable[None]]
) -> list[Calibration]:
    """Measures models of a host and has it remember. ``tell`` tells that it takes no work, and that it does again;
    ``idle`` waits until nothing is in flight there. Raises what the provider raises."""
    before, host.paused = host.paused, True
    host.measured = True
    found: dict[str, Calibration] = {}
    try:
        tell()
        await idle(host.name)
        for each in names:
            one = await calibrated(host.provider, each, host.models()[each].window)
            await host.probe()  # what is in memory now tells its real window
            found[each] = replace(one, window=host.served_window(each))
    finally:
        host.measured = False
        host.paused = before
        host.remember(found)
        tell()
    return list(found.values())


def with_useful_window(host: Host, offered: Mapping[str, OfferedModel], model: str | None, tokens: int) -> str:
    """The model of a host whose useful window is to be ``tokens``.

    Raises:
        NotFound: no such model.
        InvalidParams: no model is named, or its window is smaller.
    """
    if model is None:
        raise InvalidParams("A useful window is one model's.", hint=f"Name one: {', '.join(offered)}.")
    found = next((each for each in offered if model in (each, each.removesuffix(":latest"))), None)
    if found is None:
        raise NotFound(f"Host {host.name} offers no model {model[:100]!r}.", hint=f"Its models: {', '.join(offered)}.")
    if tokens > (window := offered[found].window):
        raise InvalidParams(
            f"{found} on {host.name} has a window of {window:,} tokens; {tokens:,} of them cannot be useful.",
            hint="Raise its window in the config first.",
        )
    return found
