"""What cells ask, checked before it is sent, and what they get back (child side, standard library alone)."""

from __future__ import annotations

from rlmd.repl.asking import SubQueryError
from rlmd.repl.link import MOST_CHARS, MOST_SLOTS

#: Characters of a model's name.
_MOST_NAME = 200

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any

    from rlmd.repl.shapes import Shape


class Reply(str):
    """The text of a reply. Awaiting it gives it, for cells that take ``llm_query`` for a coroutine."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Reply]:
        return self
        yield

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str.__str__(self),))


class Replies(list):  # type: ignore[type-arg]  # Any is not there when this runs
    """The results of a batch; awaiting it gives it."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Replies]:
        return self
        yield

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, (list(self),))


def ok(results: Iterable[Any]) -> list[Any]:
    """The results of a batch that did not fail."""
    return [result for result in results if not isinstance(result, SubQueryError)]


def prompt_of(prompt: Any, slot: int | None = None) -> str:
    where = "llm_query" if slot is None else f"llm_query_batched, slot {slot}"
    if isinstance(prompt, SubQueryError):
        raise TypeError(f"{where}: the prompt is a failed sub-query: {prompt!s}")
    if not isinstance(prompt, str):
        raise TypeError(f"{where}: the prompt must be a str, not {type(prompt).__name__}")
    if len(prompt) > MOST_CHARS:
        raise ValueError(f"{where}: a prompt of {len(prompt):,} characters; at most {MOST_CHARS:,} can be sent")
    return str.__str__(prompt)


def prompts_of(prompts: Any) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError("llm_query_batched takes a list of prompts, not one str")
    ready = [prompt_of(prompt, slot) for slot, prompt in enumerate(prompts)]
    if len(ready) > MOST_SLOTS:
        raise ValueError(f"llm_query_batched: {len(ready):,} prompts; one batch takes {MOST_SLOTS:,}")
    return ready


def paired(questions: Any, contexts: Iterable[Any] | None) -> tuple[list[Any], list[Any]]:
    """Questions and the context of each, as many of the one as of the other."""
    given = None if contexts is None else list(contexts)
    asked = [questions] * (1 if given is None else len(given)) if isinstance(questions, str) else list(questions)
    if given is not None and len(given) != len(asked):
        raise ValueError(f"rlm_query_batched: {len(asked):,} questions and {len(given):,} contexts")
    if len(asked) > MOST_SLOTS:
        raise ValueError(f"rlm_query_batched: {len(asked):,} questions; one batch takes {MOST_SLOTS:,}")
    return asked, given or [None] * len(asked)


def alone(reply: Any, shape: Shape | None) -> Any:
    if isinstance(reply, SubQueryError):
        raise reply
    return Reply(reply) if shape is None else shape.value(reply)


def together(replies: list[Any], shape: Shape | None) -> Replies:
    return Replies(replies if shape is None else (_shaped(shape, slot, replies) for slot in range(len(replies))))


def _shaped(shape: Shape, slot: int, replies: list[Any]) -> Any:
    """A reply that the type itself refuses, such as a validator of the cell's own, fails in its slot alone."""
    if isinstance(replies[slot], SubQueryError):
        return replies[slot]
    try:
        return shape.value(replies[slot])
    except Exception as error:  # noqa: BLE001  whatever the cell's own type raises
        return SubQueryError.make("reply_mismatch", f"{type(error).__name__}: {error}", slot, len(replies))


def schema_of(shape: Shape | None) -> str | None:
    return None if shape is None else shape.schema


def model_of(model: Any) -> str | None:
    """Many models give the text as what comes second."""
    if model is None:
        return None
    if type(model) is not str or len(model) > _MOST_NAME or any(map(str.isspace, model)):  # a piece is no name either
        raise TypeError(
            "what comes second is the name of a model, if anything; the text belongs into the prompt, before the "
            'question: llm_query(text + "\\n\\n" + question)'
        )
    return model


def shape_of(schema: Any) -> Shape | None:
    """How replies are read; most are text."""
    if schema is None:
        return None
    from rlmd.repl import shapes

    return shapes.shape_of(schema)
