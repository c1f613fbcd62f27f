"""ask_gdb.py URL [TOOL [NAME=VALUE...]]: calls a tool of an MCP server. Without a tool, lists the tools. Runs in any sandbox."""

import asyncio
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client


async def main(url: str, tool: str | None = None, *arguments: str) -> int:
    async with sse_client(url) as streams, ClientSession(*streams) as session:
        await session.initialize()
        if tool is None:
            for tool in (await session.list_tools()).tools:
                print(f"{tool.name:<10} {tool.description}")
            return 0
        result = await session.call_tool(tool, dict(argument.split("=", 1) for argument in arguments))
        for content in result.content:
            print(content.text)
        return int(result.isError)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
