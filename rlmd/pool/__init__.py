"""The pool: who completes which prompt, when, and what is remembered of it."""

from rlmd.pool.actions import PATIENCE
from rlmd.pool.choosing import Candidate, unheard_of
from rlmd.pool.completions import CompletionRequest, PooledCompletion, PoolStatistics
from rlmd.pool.dispatcher import Deadlines
from rlmd.pool.estimating import Expected
from rlmd.pool.host import settings_for, trusted_by_address, trusted_by_lookup
from rlmd.pool.pool import Pool
from rlmd.pool.stalls import HostWait
from rlmd.pool.status import HostStatus

__all__ = [
    "PATIENCE",
    "Candidate",
    "CompletionRequest",
    "Deadlines",
    "Expected",
    "HostStatus",
    "HostWait",
    "Pool",
    "PoolStatistics",
    "PooledCompletion",
    "settings_for",
    "trusted_by_address",
    "trusted_by_lookup",
    "unheard_of",
]
