"""The log's own rule: whatever goes wrong, wherever nobody catches it, the log tells of it without its text."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import asyncio, gc, logging, sys, threading, warnings
from rlmd.logs import configure_logging
configure_logging("debug")
bird = "canary" + str(70 + 7)
"""

CASES = {
    "at the top": "raise ValueError(bird)",
    "while another was handled": "try:\n    int(bird)\nexcept ValueError as error:\n    raise KeyError(1) from error",
    "in a thread": "threading.Thread(target=int, args=(bird,)).start()",
    "in a finaliser": "class A:\n    def __del__(self):\n        int(bird)\nA(); gc.collect()",
    "in a callback of the loop": "import uvloop\n"
    "async def main():\n"
    "    asyncio.get_running_loop().call_soon(int, bird)\n"
    "    await asyncio.sleep(0.01)\n"
    "uvloop.run(main())",
    "in a task that nobody awaits": "import uvloop\n"
    "async def fail():\n"
    "    int(bird)\n"
    "async def main():\n"
    "    task = asyncio.create_task(fail())\n"
    "    await asyncio.sleep(0.01)\n"
    "    del task\n"
    "    gc.collect()\n"
    "uvloop.run(main())",
    "as a warning": "warnings.simplefilter('always')\nwarnings.warn(bird)",
    "by a library": "logging.getLogger('library').error('it said %s', bird, exc_info=ValueError(bird))",
    "by a model of pydantic": "from rlmd.config import LogSettings\nLogSettings.model_validate({'level': bird})",
    "as an exception of ours": "import structlog\n"
    "try:\n    int(bird)\n"
    "except ValueError:\n    structlog.get_logger().exception('failed', exc_info=True, stack_info=True)",
}


@pytest.mark.parametrize("where", CASES)
def test_what_nobody_caught_is_told_without_its_text(where: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BEFORE + CASES[where]], capture_output=True, text=True, timeout=60, check=False
    )
    assert "canary77" not in ran.stdout + ran.stderr, ran.stderr
    assert ran.stderr.startswith("<"), f"nothing was told: {ran.stderr!r}"
    assert "Traceback" not in ran.stderr
