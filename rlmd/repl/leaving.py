"""Ends what a cell leaves behind, so that nothing of it runs on in the next (child side, standard library alone)."""

from __future__ import annotations

import _thread
import sys
import time

from rlmd.repl.scaffold import tell

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

#: Seconds that threads get to end; the parent ends the worker of one that does not.
_END_SECONDS = 0.1
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)


def end_timers() -> None:
    """Timers that would strike, and functions that are called for each line."""
    for timer in _TIMERS:
        _signal.setitimer(timer, 0)
    sys.settrace(None)
    sys.setprofile(None)


def end_threads(idle: set[Any]) -> None:
    """Timers of ``threading``, pools without work, and threads that run Python; one that waits in C stays.

    Args:
        idle: Threads that are ending already.
    """
    threading: Any = sys.modules.get("threading")
    if not _thread._count() or threading is None:
        return
    left = [one for one in threading.enumerate() if one is not threading.main_thread() and one not in idle]
    for one in left:
        if isinstance(one, threading.Timer):
            one.cancel()
    _end_pools(sys.modules.get("concurrent.futures.thread"))
    deadline = time.monotonic() + _END_SECONDS
    if _wait(left, deadline - _END_SECONDS / 2):
        _strike(left)
        _wait(left, deadline)
    ended = sum(not one.is_alive() for one in left)
    if ended:
        tell(f"{ended} thread{'s were' if ended > 1 else ' was'} still running and ended with the cell")


def _end_pools(pools: Any) -> None:
    """As Python does at its own end: a pool without work lets its threads go, and takes no more work."""
    queues = dict(getattr(pools, "_threads_queues", ()))
    if queues:
        pools._shutdown = True
        for queue in queues.values():
            queue.put(None)
        _wait(queues, time.monotonic() + _END_SECONDS / 2)
        pools._shutdown = False


def _wait(threads: Any, deadline: float) -> bool:
    """Waits for the end of all; whether one runs on."""
    for one in threads:
        one.join(max(0.0, deadline - time.monotonic()))
    return any(one.is_alive() for one in threads)


def _strike(threads: Any) -> None:
    """Raises SystemExit in each, at the next line of Python that it runs."""
    import ctypes  # 2 ms

    for one in threads:
        if one.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(one.ident), ctypes.py_object(SystemExit))
