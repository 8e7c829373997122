"""Model servers that others wrote, built or installed once in the user's cache folder: the full tier runs them.

llama-server comes from the sources in llama-cpp-python's sdist (the package index has no binary of it): some 7 minutes
on two idle cores. llama-cpp-python's own server takes the same library. LiteLLM's proxy is installed as it is.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

LLAMA = "0.3.36"
LITELLM = "1.108.7"
TRANSFORMERS = "5.23.0"
HERE = Path(__file__).parent


def folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rlmd-peers" / f"python-{sys.version_info[0]}.{sys.version_info[1]}"


def llama_server() -> Path:
    """The program; beside it are its libraries."""
    return _made(f"llama-server-{LLAMA}", _build_llama) / "bin" / "llama-server"


def llama_python() -> Path:
    """A Python with llama-cpp-python's server, without a library of its own: ``LLAMA_CPP_LIB_PATH`` names one."""
    packages = [f"llama-cpp-python[server]=={LLAMA}", "gguf", "cmake", "ninja"]
    return (
        _made(f"llama-python-{LLAMA}", lambda at: _venv(at, *packages, CMAKE_ARGS="-DLLAMA_BUILD=OFF")) / "bin/python"
    )


def litellm_python() -> Path:
    return _made(f"litellm-{LITELLM}", lambda at: _venv(at, f"litellm[proxy]=={LITELLM}")) / "bin" / "python"


def transformers_python() -> Path:
    """A Python with Hugging Face's ``transformers serve``; PyTorch is half a GB."""
    packages = (f"transformers[serving]=={TRANSFORMERS}", "torch")
    return _made(f"transformers-{TRANSFORMERS}", lambda at: _venv(at, *packages)) / "bin" / "python"


def random_model(*, width: int = 64, layers: int = 2) -> Path:
    """A GGUF of random weights: 0.7 MB as it is, 64 MB with a width of 512 and 6 layers."""

    def write(at: Path) -> None:
        at.mkdir()
        sizes = ["--width", str(width), "--layers", str(layers)]
        _run([llama_python(), HERE / "random_gguf.py", at / "model.gguf", *sizes])

    return _made(f"random-{width}x{layers}", write) / "model.gguf"


def random_transformer() -> Path:
    """A folder with a model of random weights and a window of 2,048, as Hugging Face's libraries keep one."""

    def write(at: Path) -> None:
        _run([transformers_python(), HERE / "random_transformer.py", at])

    return _made("random-transformer", write)


# ── making ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name, made whole or not at all, by one process at a time."""
    base = folder()
    base.mkdir(parents=True, exist_ok=True)
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        at, ready = base / name, base / f"{name}.ready"
        if not ready.exists():
            _run(["rm", "-rf", at])
            make(at)
            ready.touch()
    return at


def _venv(at: Path, *packages: str, **environment: str) -> None:
    venv.create(at, with_pip=True)
    _run([at / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], **environment)


def _build_llama(at: Path) -> None:
    tools = _made("build-tools", lambda at: _venv(at, "cmake", "ninja", "scikit-build-core"))
    at.mkdir()
    pip = [tools / "bin/python", "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    pip += ["--no-binary", "llama-cpp-python", "--no-deps", "--no-build-isolation", "-d", at]
    path = f"{tools / 'bin'}:{os.environ['PATH']}"
    _run([*pip, f"llama-cpp-python=={LLAMA}"], PATH=path)
    (archive,) = at.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(at, filter="data")
    source = at / f"llama_cpp_python-{LLAMA}" / "vendor" / "llama.cpp"
    off = ("LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "LLAMA_CURL", "LLAMA_BUILD_TESTS")
    options = [*(f"-D{name}=OFF" for name in off), "-DCMAKE_BUILD_TYPE=Release"]
    _run(["cmake", "-G", "Ninja", "-S", source, "-B", at / "build", *options], PATH=path)
    _run(["cmake", "--build", at / "build", "--target", "llama-server"], PATH=path)
    _run(["mv", at / "build" / "bin", at / "bin"])
    _run(["rm", "-rf", at / "build", source.parent.parent, archive])


def _run(command: list[Path | str], **environment: str) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[:4]}…: {done.stdout[-2000:]}"
