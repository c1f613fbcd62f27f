"""An MCP server for the debugger. Runs in `gdb_mcp`, as the command of its container.

A client that speaks MCP over SSE can ask it where the program crashes, and for the values of variables at that point.
"""

import subprocess

import anyio
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings

PROGRAM = "/shared/build/outline"
CRASH = "/shared/poc/crash.txt"
SECONDS = 30

server = FastMCP(
    "gdb",
    instructions=f"Runs {PROGRAM} under gdb. Inputs are files in /shared.",
    # Listen for the whole session, not only for this container.
    host="0.0.0.0",
    port=1111,
    sse_path="/sse",
    # mcp can refuse requests with an unknown Host header, to keep web pages away from servers on a developer's own machine. This
    # server has many names (gdb-mcp, gdb-mcp.SESSION.NAMESPACE.svc, the Pod's address), and the session's network policy decides
    # which clients may connect.
    transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    log_level="WARNING",
)


async def gdb(program_input: str, *commands: str) -> str:
    """Runs the program on an input until it ends or crashes, then these commands of gdb."""
    if not await anyio.Path(program_input).is_file():
        raise ToolError(f"There is no file {program_input}.")
    # The program `timeout` enforces the limit: it terminates gdb, which also ends the debugged program.
    argv = ["timeout", f"--kill-after={SECONDS}", f"{SECONDS}", "gdb", "-nx", "-batch"]
    # A container may not disable address randomization, so gdb must not try.
    argv += ["-iex", "set disable-randomization off", "-iex", "set print repeats 100"]
    for command in ("run", *commands):
        argv += ["-ex", command]
    argv += ["--args", PROGRAM, program_input]
    # The server answers other requests meanwhile.
    done = await anyio.run_process(argv, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False)
    if done.returncode == 124:
        raise ToolError(f"{PROGRAM} {program_input} did not end within {SECONDS} seconds.")
    lines = done.stdout.decode(errors="replace").splitlines()
    return "\n".join(line for line in lines if "libthread_db" not in line).strip()


@server.tool()
async def backtrace(input: str = CRASH) -> str:
    """Runs the program on a file, and prints the signal that ended it and the call stack, one line for each call."""
    return await gdb(input, "bt")


@server.tool()
async def inspect(expression: str, frame: int = 0, input: str = CRASH) -> str:
    """Runs the program on a file until it crashes, and prints the value of a C expression in that frame of the backtrace."""
    return await gdb(input, f"frame {frame}", f"print {expression}")


if __name__ == "__main__":
    server.run(transport="sse")
