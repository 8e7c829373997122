"""The names that cells find: contexts, searching, sub-queries, finishing (child side, standard library alone)."""

from __future__ import annotations

import os
import sys

from rlmd.repl.asking import Parent, SubQueryError
from rlmd.repl.link import MOST_CHARS, MOST_GIVEN, MOST_NAMES, Channel, Header, encode
from rlmd.repl.queries import (
    Replies,
    alone,
    model_of,
    ok,
    paired,
    prompt_of,
    prompts_of,
    schema_of,
    shape_of,
    together,
)
from rlmd.repl.texts import Document, Piece, grep, piece_of
from rlmd.repl.values import as_text, describe, kind_of

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    import mmap
    import re
    from collections.abc import Iterable, Sequence
    from typing import Any

    from rlmd.repl.spans import Tracer

NAMES = (
    "context", "contexts", "documents", "search", "grep", "chunks", "llm_query", "llm_query_batched",
    "llm_query_async", "llm_query_batched_async", "rlm_query", "rlm_query_batched", "rlm_query_async",
    "rlm_query_batched_async", "ok", "SubQueryError", "answer", "FINAL", "FINAL_VAR", "SUBMIT", "SHOW_VARS",
)  # fmt: skip


_MODULE = type(sys)


class Shown(str):
    """A text that is echoed as itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


class Scaffold:
    """The names that every cell finds; bound anew before each cell."""

    def __init__(self, namespace: dict[str, Any], channel: Channel) -> None:
        self._namespace, self.parent = namespace, Parent(channel, self._tracing)
        self._tracer: Tracer | None = None
        self._documents: dict[str, list[Document]] = {}
        self._kinds: dict[str, str] = {}
        self._answer: dict[str, Any] = {"content": "", "ready": False}
        self._bound: dict[str, Any] = {}
        self.final: tuple[str, str, str | None] | None = None

    # Contexts, between cells.

    def add_documents(self, header: Header, descriptors: list[int]) -> None:
        """Decodes documents out of mapped descriptors, which are closed."""
        import mmap

        maps: list[mmap.mmap | bytes] = []
        for descriptor in descriptors:
            size = os.fstat(descriptor).st_size
            maps.append(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b"")
            os.close(descriptor)  # at once: each map has a copy of its own
        context = header["context"]
        if header["first"]:
            self._documents[context] = []
        self._kinds[context] = header["kind"]
        for name, origin, segments in header["docs"]:
            self._documents[context].append(
                Document.make(
                    _decode(maps, segments), name=name, origin=origin, context=context, watcher=self._tracing().watch
                )
            )
        for mapped in maps:
            if not isinstance(mapped, bytes):
                mapped.close()

    def keep_contexts(self, names: Sequence[str]) -> None:
        self._documents = {name: self._documents[name] for name in names}
        if self._documents or self._tracer is not None:
            self._tracing().use(document for documents in self._documents.values() for document in documents)

    def _tracing(self) -> Tracer:
        """Made when there is something to trace, or to be traced."""
        if self._tracer is None:
            from rlmd.repl.spans import Tracer

            self._tracer = Tracer()
        return self._tracer

    # Before and after a cell.

    def restore(self) -> None:
        """Binds all scaffold names; the cell's ``answer`` stays what it was."""
        documents = [document for several in self._documents.values() for document in several]
        contexts = {
            name: several[0] if self._kinds[name] == "text" and several else list(several)
            for name, several in self._documents.items()
        }
        self.final = None
        self._bound = {
            "context": next(iter(contexts.values()), ""), "contexts": contexts, "documents": documents,
            "search": self.search, "grep": self.grep, "chunks": self.chunks, "llm_query": self.llm_query,
            "llm_query_batched": self.llm_query_batched, "llm_query_async": self.llm_query_async,
            "llm_query_batched_async": self.llm_query_batched_async, "rlm_query": self.rlm_query,
            "rlm_query_batched": self.rlm_query_batched, "rlm_query_async": self.rlm_query_async,
            "rlm_query_batched_async": self.rlm_query_batched_async, "ok": ok, "SubQueryError": SubQueryError,
            "answer": self._answer, "FINAL": self.FINAL, "FINAL_VAR": self.FINAL_VAR, "SUBMIT": self.SUBMIT,
            "SHOW_VARS": self.SHOW_VARS,
        }  # fmt: skip
        self._namespace.update(self._bound)

    def settle_answer(self) -> str | None:
        """Takes over what the cell made of ``answer``; tells the cell about scaffold names that it bound."""
        now = self._namespace.get("answer", self._answer)
        if issubclass(type(now), dict):
            self._answer = now if type(now) is dict else dict(dict.items(now))
        else:
            self._answer = {"content": now, "ready": False}
            tell("`answer` is a dict again; your value is in answer['content']")
        rebound = [n for n, v in self._bound.items() if n != "answer" and self._namespace.get(n, v) is not v]
        if rebound:
            tell(f"{', '.join(rebound)}: names of the REPL, restored before the next cell; use other names")
        ready, self._answer["ready"] = self._answer.get("ready"), False
        content = self._answer.get("content")
        text = None if content is None else as_text(content, "answer['content']") or None
        if ready:
            self.final = self.final or (text or "", "answer", None)
        return text

    def variables(self) -> list[tuple[str, str, str]]:
        """Name, type and size of what the cells bound, modules and private names left out."""
        shown: list[tuple[str, str, str]] = []
        for name, value in list(self._namespace.items()):
            private = type(name) is not str or name.startswith("_") or name in NAMES
            if not private and not issubclass(type(value), _MODULE):
                shown.append((name[:100], kind_of(value)[:100], describe(value)))
        return shown[-MOST_NAMES:]

    def value_of(self, name: str) -> str | None:
        if name == "answer":
            content = self._answer.get("content")
            return None if content is None else as_text(content, name) or None
        if name in NAMES or name not in self._namespace:
            return None
        return as_text(self._namespace[name], name)

    # The names themselves.

    def search(self, query: str, k: int = 10) -> list[Piece]:
        """The best ``k`` passages of all contexts, as pieces with ``.score`` and ``.line``."""
        by_name = {(d.context, d.name): d for several in self._documents.values() for d in several}
        return [
            piece_of(by_name[context, name], start, end, line=line, score=score)
            for context, name, start, end, line, score in self.parent.search(str(query), int(k))
            if (context, name) in by_name
        ]

    def grep(self, pattern: str | re.Pattern[str], docs: Any = None, *, limit: int = 200) -> list[Piece]:
        """Lines that match a regular expression, as pieces with ``.document`` and ``.line``; "(?i)" ignores case."""
        found, more = grep(pattern, self._chosen(docs), limit)
        if more:
            tell(f"grep: the first {limit:,} lines; there are more (limit=…)")
        return found

    def chunks(self, text: str | Iterable[str], size: float = 8000) -> list[Piece]:
        """Pieces of a text, or of each of several, of at most ``size`` characters, cut where an edit elsewhere leaves
        them as they were."""
        from rlmd.repl import cutting

        return cutting.chunks(text, size)

    def _chosen(self, docs: Any) -> Iterable[Document]:
        if docs is None:
            return [document for several in self._documents.values() for document in several]
        several = [docs] if isinstance(docs, str) else list(docs)
        named = {d.name: d for all_of in self._documents.values() for d in all_of}
        return [d if isinstance(d, Document) else named.get(d) or Document.make(d, name="") for d in several]

    def llm_query(self, prompt: str, model: str | None = None, *, schema: Any = None) -> Any:
        """Asks a sub-model once; the reply's text. Raises ``SubQueryError`` when it fails.

        Args:
            prompt: All that the model sees.
            model: One of the configured sub-models; by default whichever is free.
            schema: A JSON schema (dict) or a Python type: the reply comes as data of that form.
        """
        shape = shape_of(schema)
        [reply] = self.parent.ask([prompt_of(prompt)], model_of(model), schema_of(shape))
        return alone(reply, shape)

    async def llm_query_async(self, prompt: str, model: str | None = None, *, schema: Any = None) -> Any:
        """``llm_query`` to be awaited: other tasks of the cell go on meanwhile."""
        shape = shape_of(schema)
        [reply] = await self.parent.ask_async([prompt_of(prompt)], model_of(model), schema_of(shape))
        return alone(reply, shape)

    def llm_query_batched(self, prompts: Iterable[str], model: str | None = None, *, schema: Any = None) -> Replies:
        """Asks all prompts at once; results in their order, a falsy ``SubQueryError`` in each slot that failed."""
        ready, shape = prompts_of(prompts), shape_of(schema)
        return together(self.parent.ask(ready, model_of(model), schema_of(shape)) if ready else [], shape)

    async def llm_query_batched_async(
        self, prompts: Iterable[str], model: str | None = None, *, schema: Any = None
    ) -> Replies:
        """``llm_query_batched`` to be awaited."""
        ready, shape = prompts_of(prompts), shape_of(schema)
        asked = await self.parent.ask_async(ready, model_of(model), schema_of(shape)) if ready else []
        return together(asked, shape)

    def rlm_query(self, question: str, context: Any = None) -> Any:
        """Asks a run of its own, with a REPL of its own, about a text, a piece or a list of them; without ``context``
        about the contexts of this one. Raises ``SubQueryError`` when it fails."""
        return alone(self.parent.ask_runs(*self._asked_of_runs([question], [context]))[0], None)

    async def rlm_query_async(self, question: str, context: Any = None) -> Any:
        """``rlm_query`` to be awaited: other tasks of the cell go on meanwhile."""
        [reply] = await self.parent.ask_runs_async(*self._asked_of_runs([question], [context]))
        return alone(reply, None)

    def rlm_query_batched(self, questions: Any, contexts: Iterable[Any] | None = None) -> Replies:
        """Asks one run for each question, or one question of each of ``contexts``; results in their order, a falsy
        ``SubQueryError`` in each slot that failed."""
        asked, given = paired(questions, contexts)
        return together(self.parent.ask_runs(*self._asked_of_runs(asked, given)) if asked else [], None)

    async def rlm_query_batched_async(self, questions: Any, contexts: Iterable[Any] | None = None) -> Replies:
        """``rlm_query_batched`` to be awaited."""
        asked, given = paired(questions, contexts)
        replies = await self.parent.ask_runs_async(*self._asked_of_runs(asked, given)) if asked else []
        return together(replies, None)

    def _asked_of_runs(self, questions: list[Any], contexts: list[Any]) -> tuple[list[str], list[Header]]:
        """What is sent of each: its question and texts, and how these are made up."""
        prompts: list[str] = []
        more: list[Header] = []
        for question, context in zip(questions, contexts, strict=True):
            asked = prompt_of(question)
            texts, given = ("", None) if context is None else self._given(context)
            if len(asked) + len(texts) > MOST_CHARS:
                raise ValueError(
                    f"rlm_query: {len(texts):,} characters of text made by this cell; at most {MOST_CHARS:,} can be "
                    "sent (pieces of the contexts may be longer)"
                )
            prompts.append(asked + texts)
            more.append({"spans": [], "question": len(asked), "given": given})
        return prompts, more

    def _given(self, context: Any) -> tuple[str, list[Any]]:
        """Texts to be sent, and in order their lengths, and places of what the parent has itself."""
        texts: list[str] = []
        given: list[Any] = []
        parts = [context] if isinstance(context, str) else list(context)
        if len(parts) > MOST_GIVEN:
            raise ValueError(f"rlm_query: {len(parts):,} pieces; one run takes {MOST_GIVEN:,}: join them")
        for part in parts:
            if not isinstance(part, str):
                raise TypeError(f"rlm_query: a context is text or a list of texts, not {type(part).__name__}")
            document = getattr(part, "document", None)
            if any(document is one for one in self._documents.get(getattr(document, "context", ""), ())):
                given.append([document.context, document.name, part.start, part.end])  # type: ignore[union-attr,attr-defined]
            else:
                text = encode(str.__str__(part)).decode()
                texts.append(text)
                given.append(len(text))
        return "".join(texts), given

    def FINAL(self, answer: Any) -> None:  # noqa: N802 -- the name that models were taught
        """Hands over the answer."""
        self._finish(answer, "FINAL", None)

    def SUBMIT(self, answer: Any) -> None:  # noqa: N802 -- as above
        """Hands over the answer."""
        self._finish(answer, "SUBMIT", None)

    def FINAL_VAR(self, name: Any) -> None:  # noqa: N802 -- as above
        """Hands over the value of a variable, given by name or itself."""
        if not isinstance(name, str) or not name.isidentifier():
            names = [n for n, v in self._namespace.items() if v is name and n not in NAMES and not n.startswith("_")]
            return self._finish(name, "FINAL_VAR", names[0] if names else None)
        if name == "answer":
            return self._finish(_content(self._namespace.get("answer")), "FINAL_VAR", name)
        if name in NAMES or name not in self._namespace:
            existing = ", ".join(n for n, _, _ in self.variables()) or "none yet"
            raise NameError(f"FINAL_VAR: no variable {name!r} of yours; there are: {existing}")
        return self._finish(self._namespace[name], "FINAL_VAR", name)

    def _finish(self, value: Any, via: str, name: str | None) -> None:
        text = as_text(value, via)
        if not text.strip():
            raise ValueError(f"{via}: the answer is empty")
        self.final = (text, via, name)

    def SHOW_VARS(self) -> Shown:  # noqa: N802 -- as above
        """The variables that exist, one a line."""
        return Shown("\n".join(f"{n}: {kind} ({size})" for n, kind, size in self.variables()) or "no variables yet")


def _decode(maps: list[mmap.mmap | bytes], segments: list[list[int]]) -> str:
    if len(segments) == 1:
        index, offset, length = segments[0]
        with memoryview(maps[index]) as view, view[offset : offset + length] as part:
            return str(part, "utf-8", "surrogateescape")
    # A character may lie across two segments of a text that grew.
    return b"".join(maps[i][offset : offset + length] for i, offset, length in segments).decode(
        "utf-8", "surrogateescape"
    )


def _content(answer: Any) -> Any:
    return answer.get("content") if isinstance(answer, dict) else answer


def tell(sentence: str) -> None:
    """A line of the REPL itself in the cell's output, wherever the cell sent its own."""
    try:
        sys.stdout.flush()
        os.write(1, encode(f"[{sentence}]\n"))
    except (AttributeError, OSError, ValueError):  # the cell closed or replaced them
        return
