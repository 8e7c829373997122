"""The server: MCP's requests on one side, the tools on the other. All that knows the SDK is here.

Its API: https://modelcontextprotocol.github.io/python-sdk/
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from rlmd import __version__
from rlmd.client import connect
from rlmd.errors import InvalidParams, RlmdError
from rlmd.mcp import said
from rlmd.mcp.desk import Desk
from rlmd.mcp.files import roots_of
from rlmd.mcp.tools import STRATEGY, TOOLS, Arguments, Tool, ToolFailed
from rlmd.validation import problems_of
from rlmd.wire.methods import LimitParams

INSTRUCTIONS = """\
Texts of any size as named contexts outside your window, and models to read them. Look with list_contexts,
search_context and peek_context; explore with execute_code, where `context` is a Python string and llm_query_batched
asks sub-models about many pieces at once; or leave it all to rlm_ask, which answers with citations."""

Context = ServerRequestContext[Any, Any]


async def serve(*, roots: Sequence[Path], limits: LimitParams, start: bool = True) -> None:
    """Serves one client on standard input and output until it goes.

    Args:
        roots: Folders whose files may be loaded when the client names none; without any, the working folder.
        limits: Of all that the client asks.
        start: Whether to start the daemon when none runs.
    """
    logging.disable(logging.CRITICAL)  # the SDK's log lines hold what was asked
    _find_runtime_folder()
    async with connect(start=start, name="rlmctl mcp", egress=True) as client:
        desk = Desk(client, f"MCP client in {Path.cwd().name or '/'}"[:200], limits)
        server = _server(desk, tuple(roots))
        try:
            async with stdio_server() as (read, write):
                await server.run(read, write, server.create_initialization_options())
        finally:
            await desk.close()


def _find_runtime_folder() -> None:
    """MCP's own clients start servers without XDG_RUNTIME_DIR; the daemon's socket is there all the same."""
    usual = Path(f"/run/user/{os.getuid()}")
    if "XDG_RUNTIME_DIR" not in os.environ and usual.is_dir() and usual.stat().st_uid == os.getuid():
        os.environ["XDG_RUNTIME_DIR"] = str(usual)


def _server(desk: Desk, roots: tuple[Path, ...]) -> Server[Any]:
    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        own = await desk.programs()
        return types.ListToolsResult(tools=[_described(tool, own) for tool in TOOLS.values()])

    async def call_tool(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name!a}; there are {', '.join(TOOLS)}.")
        return await _called(desk, tool, params.arguments or {}, _Call(context, roots))

    return Server(
        "rlmd", version=__version__, instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )


def _described(tool: Tool, own: Mapping[str, str]) -> types.Tool:
    """With the person's own programs where a strategy can be chosen."""
    schema = tool.arguments.model_json_schema()
    if own and (strategy := schema["properties"].get("strategy")) is not None:
        told = "; ".join(f"{name}: {summary}" if summary else name for name, summary in own.items())
        strategy["description"] = f"{STRATEGY}; or a program of the person's: {told}"
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=schema,
        annotations=types.ToolAnnotations(read_only_hint=tool.reads, destructive_hint=False, open_world_hint=False),
    )


async def _called(desk: Desk, tool: Tool, arguments: dict[str, Any], call: _Call) -> types.CallToolResult:
    """Every error that a model can do something about is a result that says so."""
    try:
        return _told(await tool.work(desk, _parsed(tool, arguments), call))
    except ToolFailed as failed:
        return _told(str(failed), wrong=True)
    except RlmdError as error:
        return _told(said.error(error), wrong=True)


def _parsed(tool: Tool, arguments: dict[str, Any]) -> Arguments:
    try:
        return tool.arguments.model_validate(arguments)
    except ValidationError as error:
        first = problems_of(error, tool.arguments)[0]
        raise InvalidParams(f"{tool.name}: {first.sentence}.", hint=first.hint) from None


def _told(text: str, *, wrong: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=wrong)


class _Call:
    """A ``Caller`` of the tools."""

    def __init__(self, context: Context, given: tuple[Path, ...]) -> None:
        self._context = context
        self._given = given
        self._steps = 0

    async def roots(self) -> tuple[Path, ...]:
        """Those that the client names, else those of the command line, else the working folder. A client that could
        name some and names none has at most those that the person gave it."""
        capabilities = self._context.session.client_capabilities
        if capabilities is not None and capabilities.roots is not None:
            told = await self._context.session.send_request(types.ListRootsRequest(), types.ListRootsResult, 10.0)
            return roots_of(str(root.uri) for root in told.roots) or self._given
        if self._given:
            return self._given
        here = Path.cwd()
        return () if here in (Path("/"), Path.home()) else (here,)

    async def progress(self, message: str) -> None:
        self._steps += 1
        await self._context.session.report_progress(self._steps, None, message)


def run(*, roots: Sequence[Path], limits: LimitParams, start: bool = True) -> None:
    """As ``serve``, on a loop of its own."""
    asyncio.run(serve(roots=roots, limits=limits, start=start))
