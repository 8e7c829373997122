"""One measurement of another RLM implementation, in a virtual environment that has it.

    python peer.py rlms|dspy batch|sequential|context BASE_URL COUNT

Imports nothing of rlmd. The root follows a script that this file gives to the server (``/fake/script``); its one cell
measures itself, so that set-up and imports of the peer do not count. Prints ``{"seconds": …}``.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request

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


def main(peer: str, what: str, url: str, count: int) -> None:
    context = "x" * count if what == "context" else "a short text"
    cell = CELLS[what].format(count=count)
    began, seconds = {"rlms": with_rlms, "dspy": with_dspy}[peer](url, cell, context)
    print(json.dumps({"seconds": seconds - began if what == "context" else seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
