"""Named, versioned texts that survive crashes: stored as blobs, read by code point, searched in helper processes."""

from rlmd.contexts.converting import Converters
from rlmd.contexts.memory import in_memory
from rlmd.contexts.pinned import PinnedContext
from rlmd.contexts.privacy import PrivacyRules
from rlmd.contexts.records import (
    Collected,
    ContextInfo,
    Diff,
    DocumentChange,
    DocumentInfo,
    FileIdentity,
    Hit,
    InlineSource,
    LoadReport,
    PathSource,
    Peek,
    PinnedDocument,
    Segment,
    Skipped,
    Source,
    SpoolSource,
)
from rlmd.contexts.retention import Retention
from rlmd.contexts.store import ContextStore
from rlmd.contexts.uploads import MAX_CHUNK, Announced

__all__ = [
    "MAX_CHUNK",
    "Announced",
    "Collected",
    "ContextInfo",
    "ContextStore",
    "Converters",
    "Diff",
    "DocumentChange",
    "DocumentInfo",
    "FileIdentity",
    "Hit",
    "InlineSource",
    "LoadReport",
    "PathSource",
    "Peek",
    "PinnedContext",
    "PinnedDocument",
    "PrivacyRules",
    "Retention",
    "Segment",
    "Skipped",
    "Source",
    "SpoolSource",
    "in_memory",
]
