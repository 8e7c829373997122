"""Starts a model server that others wrote, waits until it answers, and ends it.

In a test::

    async with llama_server(slots=2) as url: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from tests.peers import built

KEY = "sk-rlmd-tests"
#: LiteLLM's names for what it makes up by itself, and the reply or error that it then answers.
MOCKS = {
    "mock": "a mocked reply",
    "busy": "litellm.RateLimitError",
    "broken": "litellm.InternalServerError",
    "small": "litellm.ContextWindowExceededError",
}


@contextlib.asynccontextmanager
async def llama_server(*, slots: int = 2, window: int = 2048, large: bool = False) -> AsyncIterator[str]:
    """``large``: a model of 64 MB, slow enough to be stopped in the middle."""
    program = await asyncio.to_thread(built.llama_server)
    model = await asyncio.to_thread(lambda: built.random_model(**({"width": 512, "layers": 6} if large else {})))
    command = [str(program), "-m", str(model), "-np", str(slots), "-c", str(slots * window), "--metrics", "-t", "1"]
    libraries = {"LD_LIBRARY_PATH": str(program.parent)}
    async with _running([*command, "--host", "127.0.0.1", "--port", "{port}"], "/health", **libraries) as url:
        yield url


@contextlib.asynccontextmanager
async def llama_cpp_python(*, large: bool = False) -> AsyncIterator[str]:
    """A window of 2,048; one request at a time, and a second one cuts the first."""
    library = (await asyncio.to_thread(built.llama_server)).parent
    python = await asyncio.to_thread(built.llama_python)
    model = await asyncio.to_thread(lambda: built.random_model(**({"width": 512, "layers": 6} if large else {})))
    command = [str(python), "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "2048", "--n_threads", "1"]
    libraries = {"LLAMA_CPP_LIB_PATH": str(library), "LD_LIBRARY_PATH": str(library)}
    async with _running([*command, "--host", "127.0.0.1", "--port", "{port}"], "/v1/models", **libraries) as url:
        yield url


@contextlib.asynccontextmanager
async def transformers_serve() -> AsyncIterator[str]:
    """A window of 2,048; its one model is called by the folder in which it is."""
    python = await asyncio.to_thread(built.transformers_python)
    model = str(await asyncio.to_thread(built.random_transformer))
    command = [str(python.parent / "transformers"), "serve", model, "--host", "127.0.0.1", "--port", "{port}"]
    with tempfile.TemporaryDirectory() as hub:  # it lists what is there, and fails where there is no such folder
        async with _running(command, "/health", HF_HUB_CACHE=hub, HF_HUB_OFFLINE="1") as url:
            yield url


@contextlib.asynccontextmanager
async def litellm_proxy(upstream: str) -> AsyncIterator[str]:
    """A proxy to an OpenAI-compatible server, as the model ``local``, with ``MOCKS`` beside it."""
    python = await asyncio.to_thread(built.litellm_python)
    local = {"model": "openai/tiny", "api_base": upstream + "/v1", "api_key": "none"}
    mocks = {name: {"model": "openai/x", "api_key": "none", "mock_response": said} for name, said in MOCKS.items()}
    models = [{"model_name": name, "litellm_params": one} for name, one in {"local": local, **mocks}.items()]
    config = {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "config.yaml")
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        command = [str(python.parent / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", "{port}"]
        async with _running(command, "/health/liveliness", HOME=home, LITELLM_LOCAL_MODEL_COST_MAP="True") as url:
            yield url


@contextlib.asynccontextmanager
async def _running(command: list[str], ready: str, **environment: str) -> AsyncIterator[str]:
    """The server at a port that was free, from when ``ready`` answers 200 to its end."""
    port = _free_port()
    command = [str(port) if part == "{port}" else part for part in command]
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            await _answers(f"http://127.0.0.1:{port}{ready}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
            log.seek(0)
            print(log.read()[-4000:].decode(errors="replace"))  # pytest shows it when the test failed


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url, headers={"Authorization": f"Bearer {KEY}"}) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise AssertionError(f"the server ended with status {process.returncode} before it answered")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
