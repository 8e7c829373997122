"""A run in the log format of the reference implementation (rlms 0.1.3, ``RLMLogger``), for its visualizer.

One JSON object a line: ``metadata``, then an ``iteration`` for each turn. A child run is one of its cell's calls, with
its own iterations as the call's ``metadata``. Values are elided: where the reference writes
every variable of the REPL, here are their types and sizes. Times are ISO without a zone, in UTC, as there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rlmd.engine.exports.story import CellStory, ChildStory, Story, SubQueryStory, TurnStory
from rlmd.events import CompletionRecord, ModelUse

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def reference(story: Story) -> str:
    """The lines, each ended by a newline."""
    lines = [_metadata(story), *_iterations(story)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _iterations(story: Story) -> list[dict[str, Json]]:
    messages: list[Json] = [{"role": "user", "content": _opening(story)}]
    lines = []
    for number, turn in enumerate(story.turns, 1):
        last = number == len(story.turns)
        lines.append(_iteration(story, turn, number, list(messages), story.answer if last else None))
        messages.append({"role": "assistant", "content": turn.reply})
        messages.append({"role": "user", "content": _told(turn)})
    return lines


def _metadata(story: Story) -> dict[str, Json]:
    started = story.started
    contexts: list[Json] = [f"{pin.context}@{pin.revision}" for pin in started.contexts]
    others: list[Json] = list(started.sub)
    return {
        "type": "metadata",
        "timestamp": _time(started.time),
        "root_model": _model(started.root),
        "max_depth": max(1, started.limits.depth),
        "max_iterations": started.limits.turns,
        "backend": "rlmd",
        "backend_kwargs": {"model_name": _model(started.root)},
        "environment_type": "rlmd",
        "environment_kwargs": {"contexts": contexts},
        "other_backends": others or None,
        "run_id": started.run_id,
        "query": story.question,
        "context": _contexts(story),
    }


def _iteration(
    story: Story, turn: TurnStory, number: int, prompt: list[Json], final_answer: str | None
) -> dict[str, Json]:
    seconds = turn.completion.seconds if turn.completion is not None else 0.0
    blocks: list[Json] = [_code_block(story, cell) for cell in turn.cells]
    return {
        "type": "iteration",
        "iteration": number,
        "timestamp": _time(turn.time),
        "prompt": prompt,
        "response": turn.reply or turn.failed,
        "code_blocks": blocks,
        "final_answer": final_answer,
        "iteration_time": round(seconds + sum(cell.seconds for cell in turn.cells), 6),
    }


def _code_block(story: Story, cell: CellStory) -> dict[str, Json]:
    names: dict[str, Json] = {name: f"<{kind}, {size}>" for name, kind, size in cell.names}
    calls: list[Json] = [*map(_call, cell.sub_queries), *map(_child, cell.children)]
    return {
        "code": cell.code,
        "result": {
            "stdout": cell.output,
            "stderr": cell.error or "",
            "locals": {"context": _contexts(story), **names},
            "execution_time": cell.seconds,
            "final_answer": cell.final,
            "rlm_calls": calls,
        },
    }


def _call(one: SubQueryStory) -> dict[str, Json]:
    prompt = one.prompt
    if one.prompt_chars > len(prompt):
        prompt += f"… [{one.prompt_chars - len(prompt):,} characters elided]"
    call: dict[str, Json] = {
        "root_model": one.completion.model if one.completion is not None else "",
        "prompt": prompt,
        "response": one.reply,
        "usage_summary": _usage(one.completion),
        "execution_time": one.seconds,
        "prompt_tokens": one.completion.prompt_tokens if one.completion is not None else 0,
        "completion_tokens": one.completion.completion_tokens if one.completion is not None else 0,
    }
    return call | {"error": one.reply} if one.failed else call


def _child(child: ChildStory) -> dict[str, Json]:
    receipt = child.receipt
    uses = receipt.models if receipt is not None else ()
    root = child.story.started.root if child.story is not None else ()
    call: dict[str, Json] = {
        "root_model": _model(root),
        "prompt": child.question,
        "response": child.answer,
        "usage_summary": {"model_usage_summaries": _summed(uses)},
        "execution_time": receipt.wall_seconds if receipt is not None else 0.0,
        "prompt_tokens": sum(use.prompt_tokens for use in uses),
        "completion_tokens": sum(use.completion_tokens for use in uses),
    }
    if child.story is not None:
        iterations: list[Json] = [*_iterations(child.story)]
        call["metadata"] = {"run_metadata": _metadata(child.story), "iterations": iterations}
    return call if child.outcome == "answered" else call | {"error": child.answer or child.outcome or "not ended"}


def _summed(uses: Sequence[ModelUse]) -> dict[str, Json]:
    """By model, whatever the host and the role."""
    summed: dict[str, Json] = {}
    for model in dict.fromkeys(use.model for use in uses):
        own = [use for use in uses if use.model == model]
        summed[model] = {
            "total_calls": sum(use.calls for use in own),
            "total_input_tokens": sum(use.prompt_tokens for use in own),
            "total_output_tokens": sum(use.completion_tokens for use in own),
        }
    return summed


def _usage(completion: CompletionRecord | None) -> dict[str, Json]:
    if completion is None:
        return {"model_usage_summaries": {}}
    usage: dict[str, Json] = {
        "total_calls": 1,
        "total_input_tokens": completion.prompt_tokens,
        "total_output_tokens": completion.completion_tokens,
    }
    return {"model_usage_summaries": {completion.model: usage}}


def _opening(story: Story) -> str:
    """The visualizer looks for the question between these quotes."""
    question = story.question.replace('"', "'")
    return f'Answer the original query: "{question}"\n\n{_contexts(story)}'


def _told(turn: TurnStory) -> str:
    outputs = [f"REPL output of cell {cell.number}:\n{cell.output}" for cell in turn.cells]
    return "\n\n".join([*outputs, *turn.remarks])


def _contexts(story: Story) -> str:
    pins = story.started.contexts
    return "; ".join(f"[{pin.kind} {pin.context!r}, {pin.chars:,} characters, elided]" for pin in pins)


def _model(names: tuple[str, ...]) -> str:
    return names[0] if names else "none"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
