"""``rlmctl rpc``: any method of the protocol, by its name, with parameters as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output

_EXAMPLES = """\b
examples:
  rlmctl rpc                                   what methods there are
  rlmctl rpc daemon/status
  rlmctl rpc context/peek '{"name": "linux", "document": "README"}'
  rlmctl rpc run/ask - < params.json
docs/protocol.md says what each takes and gives; rlmctl rpc rpc.discover tells it as OpenRPC.
"""


def register(app: typer.Typer) -> None:
    app.command("rpc", epilog=_EXAMPLES)(rpc)


def rpc(
    method: Annotated[str | None, typer.Argument(metavar="METHOD", help="Such as context/list.")] = None,
    params: Annotated[str, typer.Argument(metavar="PARAMS", help="A JSON object; - reads standard input.")] = "{}",
) -> None:
    """Call a method of the protocol and print its result as JSON."""
    given = _object(sys.stdin.read() if params == "-" else params)

    async def work(client: Client, output: Output) -> None:
        if method is None:
            for one in (await client.call_json("rpc.discover", {}))["methods"]:
                output.print(f"{one['name']:20} {one['summary']}")
            return
        result = await client.call_json(method, given)
        output.print(json.dumps(result, ensure_ascii=output.out.isatty(), indent=2))

    with_daemon(work)


def _object(text: str) -> dict[str, Any]:
    """Raises ``typer.Exit`` for what is no JSON object."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise options.usage_error(f"PARAMS: no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise options.usage_error("PARAMS: parameters are a JSON object.")
    return found
