"""One measurement of another RLM implementation, in a virtual environment that has it.

    python peer.py rlms|dspy batch|sequential|context|whole BASE_URL COUNT

Imports nothing of rlmd. The root follows a script that this file gives to the server (``/fake/script``); its one cell
measures itself, so that set-up and imports of the peer do not count. Prints ``{"seconds": …}``. ``whole`` is a run of
six turns over a text of COUNT characters with its journal, where there is one: ``{"seconds", "cpu", "journal"}`` too.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CELLS = {
    "batch": (
        "import time\nbegan = time.perf_counter()\n"
        "replies = llm_query_batched([f'prompt {{n}}' for n in range({count})])\n"
        "assert len(replies) == {count} and all(str(r).startswith('digest') for r in replies), replies[:3]\n"
        "elapsed = time.perf_counter() - began"
    ),
    "sequential": (
        "import time\nllm_query('warm up')\nbegan = time.perf_counter()\n"
        "for n in range({count}):\n    assert llm_query(f'prompt {{n}}').startswith('digest')\n"
        "elapsed = time.perf_counter() - began"
    ),
    "context": "import time\nassert len(context) == {count}\nelapsed = time.time()",
}


#: The six cells of a whole run, each of which a root of any kind could have written.
WHOLE = (
    "print(len(context)); print(context[:2000])",
    "print(context[2000:4000]); size = len(context) // 200",
    "pieces = [context[n * size : n * size + 4000] for n in range(200)]; print(len(pieces), sum(map(len, pieces)))",
    """prompts = [p + '\\n\\nWhat does the text above say? ' + str(n) for n, p in enumerate(pieces)]
replies = llm_query_batched(prompts); print(len(replies), str(replies[0])[:100])""",
    "result = str(len([r for r in replies if str(r).startswith('digest')])); print(result)",
)


def script(url: str, entries: list[str]) -> None:
    data = json.dumps({"scripts": {"root": entries}}).encode()
    urllib.request.urlopen(urllib.request.Request(url + "/fake/script", data)).read()


def with_rlms(url: str, cell: str, context: str) -> tuple[float, float]:
    from rlm import RLM

    script(url, [f"```repl\n{cell}\nanswer['content'] = str(elapsed)\nanswer['ready'] = True\n```"])
    server = {"base_url": url + "/v1", "api_key": "none"}
    rlm = RLM(
        backend="openai",
        backend_kwargs={"model_name": "root", **server},
        other_backends=["openai"],
        other_backend_kwargs=[{"model_name": "sub", **server}],
        environment="local",
        orchestrator=False,
    )
    began = time.time()
    return began, float(rlm.completion(context, root_prompt="How long?").response)


def with_dspy(url: str, cell: str, context: str) -> tuple[float, float]:
    import dspy

    code = f"{cell}\nSUBMIT(answer=str(elapsed))"
    script(url, [f"[[ ## reasoning ## ]]\nok\n\n[[ ## code ## ]]\n```python\n{code}\n```\n\n[[ ## completed ## ]]"])
    server = {"api_base": url + "/v1", "api_key": "none", "cache": False}
    dspy.configure(lm=dspy.LM("openai/root", **server))
    rlm = dspy.RLM(
        "context, query -> answer",
        max_llm_calls=100_000,
        sub_lm=dspy.LM("openai/sub", **server),
        interpreter_factory=dspy.LocalInterpreter,
    )
    began = time.time()
    return began, float(rlm(context=context, query="How long?").answer)


def whole_with_rlms(url: str, context: str, folder: str) -> str:
    from rlm import RLM
    from rlm.logger import RLMLogger

    last = "answer['content'] = result\nanswer['ready'] = True"
    script(url, [f"```repl\n{cell}\n```" for cell in (*WHOLE, last)])
    server = {"base_url": url + "/v1", "api_key": "none"}
    rlm = RLM(
        backend="openai",
        backend_kwargs={"model_name": "root", **server},
        other_backends=["openai"],
        other_backend_kwargs=[{"model_name": "sub", **server}],
        environment="local",
        orchestrator=False,
        logger=RLMLogger(log_dir=folder),
    )
    return str(rlm.completion(context, root_prompt="How many?").response)


def whole_with_dspy(url: str, context: str, folder: str) -> str:
    import dspy

    form = "[[ ## reasoning ## ]]\nok\n\n[[ ## code ## ]]\n```python\n{}\n```\n\n[[ ## completed ## ]]"
    script(url, [form.format(cell) for cell in (*WHOLE, "SUBMIT(answer=result)")])
    server = {"api_base": url + "/v1", "api_key": "none", "cache": False}
    dspy.configure(lm=dspy.LM("openai/root", **server))
    rlm = dspy.RLM(
        "context, query -> answer",
        max_llm_calls=100_000,
        sub_lm=dspy.LM("openai/sub", **server),
        interpreter_factory=dspy.LocalInterpreter,
    )
    return str(rlm(context=context, query="How many?").answer)


def whole(peer: str, url: str, chars: int) -> None:
    """A line of 80 characters again and again; the answer is how many sub-queries were answered."""
    context = ("a line of eighty characters" * 3)[:79] + "\n"
    context *= chars // len(context)
    importlib.import_module({"rlms": "rlm", "dspy": "dspy"}[peer])  # its own start is not the run's
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), cpu()
        answer = {"rlms": whole_with_rlms, "dspy": whole_with_dspy}[peer](url, context, folder)
        seconds, used = time.perf_counter() - began, cpu() - used
        assert answer == "200", answer
        journal = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    print(json.dumps({"seconds": seconds, "cpu": used, "journal": journal}))


def cpu() -> float:
    """Seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main(peer: str, what: str, url: str, count: int) -> None:
    if what == "whole":
        whole(peer, url, count)
        return
    context = "x" * count if what == "context" else "a short text"
    cell = CELLS[what].format(count=count)
    began, seconds = {"rlms": with_rlms, "dspy": with_dspy}[peer](url, cell, context)
    print(json.dumps({"seconds": seconds - began if what == "context" else seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
