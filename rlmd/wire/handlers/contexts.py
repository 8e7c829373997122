"""``context/*``: loading, looking at and dropping named texts."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from rlmd.contexts import Announced, ContextStore, FileIdentity, InlineSource, PathSource, SpoolSource
from rlmd.engine import Engine
from rlmd.errors import InvalidParams, NotAllowed, TooLarge
from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Encoded, Handler
from rlmd.wire.listing import listing


class ContextHandlers:
    def __init__(self, contexts: ContextStore, engine: Engine) -> None:
        self._contexts = contexts
        self._engine = engine

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "context/load": self.load,
            "context/begin": self.begin,
            "context/append": self.append,
            "context/commit": self.commit,
            "context/update": self.update,
            "context/flags": self.flags,
            "context/diff": self.diff,
            "context/list": self.list,
            "context/info": self.info,
            "context/peek": self.peek,
            "context/search": self.search,
            "context/drop": self.drop,
        }

    async def load(self, client: Connection, params: m.LoadParams) -> m.LoadResult:
        if client.egress and (params.private or params.ephemeral):
            raise _hidden()
        report = await self._contexts.load(
            _source(params.source),
            name=params.name,
            private=params.private,
            ephemeral=params.ephemeral,
            dry_run=params.dry_run,
            egress=client.egress,
            max_bytes=params.max_bytes,
        )
        self._engine.privacy_changed()
        return m.LoadResult.model_validate(report, from_attributes=True)

    async def begin(self, client: Connection, params: m.BeginParams) -> m.UploadResult:
        if client.egress and (params.private or params.ephemeral):
            raise _hidden()
        announced = Announced(
            digest=params.digest,
            bytes=params.bytes,
            name=params.name,
            origin=params.origin,
            private=params.private,
            raw=params.raw,
            egress=client.egress,
            ephemeral=params.ephemeral,
        )
        upload_id, received = await self._contexts.begin_upload(announced)
        return m.UploadResult(upload_id=upload_id, received=received)

    async def append(self, _: Connection, params: m.AppendParams) -> m.UploadResult:
        received = await self._contexts.append_upload(params.upload_id, params.offset, _chunk(params))
        return m.UploadResult(upload_id=params.upload_id, received=received)

    async def commit(self, _: Connection, params: m.CommitParams) -> m.LoadResult:
        """Who may was settled when it was begun."""
        report = await self._contexts.commit_upload(params.upload_id)
        self._engine.privacy_changed()
        return m.LoadResult.model_validate(report, from_attributes=True)

    async def update(self, client: Connection, params: m.UpdateParams) -> m.LoadResult:
        report = await self._contexts.update(params.name, dry_run=params.dry_run, egress=client.egress)
        return m.LoadResult.model_validate(report, from_attributes=True)

    async def flags(self, client: Connection, params: m.FlagsParams) -> m.ContextInfo:
        """Not for a client whose reading may leave the machine, whatever name it gives."""
        if client.egress:
            raise NotAllowed(
                "This client may not change who sees a context.", hint="Use rlmctl context flags, or Emacs."
            )
        if params.private is None:
            info, _ = await self._contexts.info(params.name, limit=0)
        else:
            info = await self._contexts.set_private(params.name, params.private)
            self._engine.privacy_changed()
        return m.ContextInfo.model_validate(info, from_attributes=True)

    async def diff(self, client: Connection, params: m.DiffParams) -> m.DiffResult:
        told = await self._contexts.diff(
            params.name,
            params.from_revision,
            params.to_revision,
            params.documents_from,
            params.limit,
            egress=client.egress,
        )
        return m.DiffResult.model_validate(told, from_attributes=True)

    async def list(self, client: Connection, _: m.Nothing) -> Encoded:
        found = self._contexts.list(egress=client.egress)
        return await listing(m.ContextListResult(contexts=()), m.ContextInfo, found)

    async def info(self, client: Connection, params: m.ContextParams) -> Encoded:
        context, documents = await self._contexts.info(
            params.name, params.documents_from, params.documents_limit, egress=client.egress
        )
        shown = m.ContextInfo.model_validate(context, from_attributes=True)
        return await listing(m.ContextInfoResult(context=shown, documents=()), m.DocumentInfo, documents)

    async def peek(self, client: Connection, params: m.PeekParams) -> m.PeekResult:
        found = await self._contexts.peek(
            params.name, params.document, params.start, params.chars, egress=client.egress
        )
        return m.PeekResult.model_validate(found, from_attributes=True)

    async def search(self, client: Connection, params: m.SearchParams) -> m.SearchResult:
        if params.cursor is not None and params.mode != "regex":
            raise InvalidParams("A cursor is of a regex.", hint="Leave it out, or set mode to regex.", field="cursor")
        start = None if params.cursor is None else (0, 0)
        if params.cursor:
            revision, *place = map(int, params.cursor.split("."))
            pinned = await self._contexts.pin_revision(params.name, revision, egress=client.egress)
            start = (place[0], place[1])
        else:
            pinned = await self._contexts.pin(params.name, egress=client.egress)
        found = await self._contexts.search_within(
            pinned, params.query, params.mode, params.limit, params.seconds, start
        )
        cursor = None if found.rest is None else f"{pinned.pin.revision}.{found.rest[0]}.{found.rest[1]}"
        return m.SearchResult(
            hits=tuple(m.SearchHit.model_validate(hit, from_attributes=True) for hit in found.hits),
            complete=found.complete,
            searched=found.searched,
            chars=found.chars,
            late=found.late,
            cursor=cursor,
        )

    async def drop(self, client: Connection, params: m.NameParams) -> m.DropResult:
        dropped = await self._engine.drop_context(params.name, egress=client.egress)
        return m.DropResult(runs=dropped.runs, sessions=dropped.sessions)


def _chunk(params: m.AppendParams) -> bytes:
    if (params.text is None) == (params.data is None):
        raise InvalidParams("context/append: either text or data must be given.", hint="data is base64.")
    try:
        data = params.text.encode() if params.text is not None else base64.b64decode(params.data or "", validate=True)
    except ValueError:
        raise InvalidParams("context/append: data is not base64.", hint="RFC 4648, section 4.", field="data") from None
    if len(data) > m.MAX_CHUNK:
        raise TooLarge(
            f"The chunk has {len(data)} bytes; {m.MAX_CHUNK} may be sent at once.",
            hint="Send smaller chunks.",
            limit=m.MAX_CHUNK,
        )
    return data


def _source(source: m.Source) -> InlineSource | PathSource | SpoolSource:
    match source:
        case m.InlineSource():
            return _inline(source)
        case m.SpoolSource():
            return SpoolSource(file=source.file, origin=source.origin, raw=source.raw)
        case m.PathSource():
            return _path(source)


def _inline(source: m.InlineSource) -> InlineSource:
    size = len(source.text.encode("utf-8", "surrogatepass"))
    if size > m.INLINE_BYTES:
        raise TooLarge(
            f"The text has {size} bytes; {m.INLINE_BYTES} may be sent inline.",
            hint="Load it by path, or write it to the spool folder and load it from there.",
            bytes=size,
            limit=m.INLINE_BYTES,
        )
    return InlineSource(text=source.text, origin=source.origin)


def _path(source: m.PathSource) -> PathSource:
    seen = source.identity
    identity = None if seen is None else FileIdentity(**{name: int(n) for name, n in seen.model_dump().items()})
    return PathSource(
        paths=source.paths,
        include=source.include,
        exclude=source.exclude,
        everything=source.everything,
        convert=source.convert,
        identity=identity,
        confined=source.confined,
    )


def _hidden() -> NotAllowed:
    return NotAllowed(
        "This client may not load privately: what it reads may leave the machine.",
        hint="Load it with rlmctl or from Emacs.",
    )
