"""What a load means: the context's name, and the change to the catalogue. Pure but for telling folders from files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping

from rlmd.contexts.catalogue import ContextChange, ContextRow, KnownDocument
from rlmd.contexts.loading import Loaded
from rlmd.contexts.records import (
    Change,
    ContextInfo,
    LoadedDocument,
    LoadReport,
    PathSource,
    PinnedDocument,
    Segment,
    Source,
)
from rlmd.errors import Conflict, InvalidParams

#: Notes of a load that are told one by one.
_NOTES = 20


def change_of(
    name: str,
    loaded: Loaded,
    known: Mapping[str, KnownDocument],
    source: Source,
    *,
    private: bool,
    implicit: bool,
) -> ContextChange:
    """What a load does to the context of that name, of which ``known`` are the documents."""
    documents = loaded.documents()
    there = {d.name for d in documents}
    replaced = {d.document.name for d in loaded.fresh}
    return ContextChange(
        name=name,
        kind=loaded.kind,
        private=private,
        implicit=implicit,
        sources=_sources(source),
        roots=dataclasses.replace(source, identity=None) if isinstance(source, PathSource) else None,
        digest=_digest(loaded, documents),
        documents=len(documents),
        chars=sum(d.chars for d in documents),
        bytes=sum(d.bytes for d in documents),
        fresh=loaded.fresh,
        gone=[k.row for n, k in known.items() if n not in there or n in replaced],
        touched=loaded.touched,
        blob=None,
    )


def checked(source: Source) -> Source:
    if isinstance(source, PathSource):
        if not source.paths:
            raise InvalidParams("No path was given.", hint="Name a file or a directory.")
        for path in source.paths:
            if not path.startswith("/") or "\0" in path:
                raise InvalidParams("A path must be absolute.", hint="The daemon does not know the client's folder.")
        if source.identity is not None and len(source.paths) != 1:
            raise InvalidParams("Identity is of one path.", hint="Leave it out for several paths.")
    return source


def _sources(source: Source) -> tuple[str, ...]:
    if isinstance(source, PathSource):
        return tuple(os.fsencode(p).decode("utf-8", "backslashreplace") for p in source.paths)
    return (source.origin,) if source.origin else ()


def implicit_path_name(source: PathSource) -> str:
    """By the paths, not the content: asked again, the same folder is an update of the same context."""
    kind = "collection" if len(source.paths) > 1 or os.path.isdir(source.paths[0]) else "text"
    key = "\0".join([kind, *sorted(source.paths), "\1", *source.include, "\1", *source.exclude])
    key += "\1everything" * source.everything + "\1convert" * source.convert
    key += "\1confined" * source.confined
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    base = os.path.basename(os.path.abspath(source.paths[0])) or "root"
    return f"{os.fsencode(base).decode('utf-8', 'backslashreplace')[:100]}-{digest[:8]}"


def comparable(known: dict[str, KnownDocument], before: PathSource | None, source: Source) -> dict[str, KnownDocument]:
    """What is known, to be kept where a file is as it was; another way of reading it makes another text."""
    if before is None or not isinstance(source, PathSource) or before.convert == source.convert:
        return known
    return {name: dataclasses.replace(one, identity=None) for name, one in known.items()}


def check_kind(change: ContextChange, before: ContextRow | None) -> None:
    """The kind of a context is fixed when it is made. Raises ``Conflict``."""
    if before is not None and before.info.kind != change.kind:
        raise Conflict(
            f"{change.name!r} is a {before.info.kind}, the source a {change.kind}.",
            hint="Choose another name, or drop it.",
        )


def forecast(before: ContextRow | None, change: ContextChange, loaded: Loaded) -> LoadReport:
    """What a load would report."""
    verdict: Change = "created" if before is None else "updated" if change.fresh or change.gone else "unchanged"
    return report(verdict, None, change, loaded)


def content_name(source: Source, loaded: Loaded, ephemeral: bool) -> str:
    """Of what is ephemeral it is another: the same text may be on disk."""
    digest = loaded.documents()[0].digest
    origin = getattr(source, "origin", None)
    base = os.path.basename((origin or "").rstrip("/"))[:100]
    name = f"{base}-{digest[:8]}" if base else f"text-{digest[:12]}"
    return f"{name}-ephemeral" if ephemeral else name


def _digest(loaded: Loaded, documents: list[PinnedDocument]) -> str:
    if loaded.kind == "text":
        return documents[0].digest
    total = hashlib.sha256()
    for document in documents:
        total.update(f"{document.name}\0{document.digest}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def placed(loaded: LoadedDocument, blob: str) -> LoadedDocument:
    segments = tuple(Segment(s.blob or blob, s.offset, s.length) for s in loaded.document.segments)
    return LoadedDocument(dataclasses.replace(loaded.document, segments=segments), loaded.identity)


def report(verdict: Change, info: ContextInfo | None, change: ContextChange, loaded: Loaded) -> LoadReport:
    return LoadReport(verdict, info, change.documents, change.chars, change.bytes, loaded.skipped, _few(loaded.notes))


def _few(notes: list[str]) -> tuple[str, ...]:
    left = len(notes) - _NOTES
    return tuple(notes) if left <= 1 else (*notes[:_NOTES], f"and {left} more notes like these")
