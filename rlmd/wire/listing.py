"""Long lists in results, written a stretch at a time: ten thousand documents at once would hold the loop for 60 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlmd.wire.dispatch import Encoded
from rlmd.wire.methods import PROTOCOL, Result, Spoken
from rlmd.wire.strictjson import encoded

#: Entries written between two turns of the loop: some 0.5 ms.
_STRETCH = 100


async def listing(result: Result, kind: type[Result], entries: Sequence[object], protocol: int = PROTOCOL) -> Encoded:
    """A result whose last field, empty so far, gets these entries.

    Args:
        result: With an empty list as its last field.
        kind: What an entry becomes.
        entries: Of that kind, or anything with its fields.
        protocol: What the client speaks.
    """
    head = encoded(result)
    assert head.endswith(b"[]}"), "the list is not the last field, or it is not empty"
    pieces, spoken = [head[:-2]], Spoken(protocol)
    for at in range(0, len(entries), _STRETCH):
        models = (kind.model_validate(one, from_attributes=True) for one in entries[at : at + _STRETCH])
        pieces.append((b"," if at else b"") + b",".join(encoded(model, spoken) for model in models))
        await asyncio.sleep(0)
    return Encoded((*pieces, b"]}"))
