"""LiteLLM's Router over the same servers and tasks as our pool, in a virtual environment that has it.

    python peer_router.py STRATEGY AT_ONCE PROMPTS_FILE URL…      AT_ONCE 0: all of them

Imports nothing of rlmd. Prints a line ``ready`` when it begins, then
``{"seconds": …, "lost": …, "cpu_ms": …}``; ``cpu_ms`` a request.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import litellm

litellm.suppress_debug_info = True


async def main(strategy: str, at_once: int, prompts: list[str], urls: list[str]) -> None:
    deployments = [
        {"model_name": "sub", "litellm_params": {"model": "openai/sub", "api_base": url + "/v1", "api_key": "none"}}
        for url in urls
    ]
    router = litellm.Router(model_list=deployments, routing_strategy=strategy, num_retries=2)
    gate = asyncio.Semaphore(at_once or len(prompts))

    async def one(prompt: str) -> bool:
        async with gate:
            try:
                message = {"role": "user", "content": prompt}
                await router.acompletion(model="sub", messages=[message], max_tokens=64)
            except Exception:
                return False
            return True

    await one("warm")
    print("ready", flush=True)
    began, cpu = time.perf_counter(), time.process_time()
    done = await asyncio.gather(*(one(prompt) for prompt in prompts))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "lost": done.count(False), "cpu_ms": 1e3 * cpu / len(prompts)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()), sys.argv[4:]))
