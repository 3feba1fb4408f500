"""The same toolbox in a gevent worker: everything patched before anything is imported, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from gevent import monkey; monkey.patch_all()
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from threading import Event
from aibridge.interception.toolbox import CallContext, ToolFailed
from aibridge.settings import McpServer
from tests.mcp.servers import STDIO, ExampleServer, call, eventually, running, text_of

def context(seconds, cancelled=None):
    return CallContext("ann", "i1", deadline=time.monotonic() + seconds, cancelled=cancelled or Event())

def failure(tool, context):
    before = time.monotonic()
    try:
        toolbox.call(tool, {"seconds": 20}, context)
    except ToolFailed as failed:
        assert time.monotonic() - before < 8
        return str(failed)

def exercise(name):
    tools = {tool.name: tool for tool in toolbox.tools() if tool.wire_name.startswith(f"bmcp_{name}_")}
    assert len(tools) == 5, tools
    with ThreadPoolExecutor(50) as pool:
        slow = [pool.submit(toolbox.call, tools["slow"], {"seconds": 1.5}, context(20)) for _ in range(25)]
        quick = [pool.submit(call, toolbox, tools["echo"], text="x") for _ in range(25)]
        assert {text_of(result.result()) for result in quick} == {"x"}
        assert not any(result.done() for result in slow)
        assert {text_of(result.result()) for result in slow} == {"waited 1.5 s"}
    assert "timed out" in failure(tools["slow"], context(0.2))
    cancelled = Event()
    threading.Timer(0.1, cancelled.set).start()
    assert "cancelled" in failure(tools["slow"], context(20, cancelled))

def dies(name, end, start):
    tool = next(tool for tool in toolbox.tools() if tool.wire_name == f"bmcp_{name}_slow")
    status = lambda: toolbox.status()["mcp_servers"][name]["connected"]
    threading.Timer(0.2, end).start()
    assert "lost" in failure(tool, context(30))
    eventually(lambda: not status())
    start()
    eventually(status)
    assert text_of(toolbox.call(tool, {"seconds": 0}, context(5))) == "waited 0 s"

def kill_children():
    for pid in map(int, os.popen(f"pgrep -P {os.getpid()} -f -- '[-]-stdio'").read().split()):
        os.kill(pid, 9)

http, sse = ExampleServer("streamable-http"), ExampleServer("sse")
http.start(); sse.start()
settings = (
    http.settings.model_copy(update={"name": "http"}),
    sse.settings.model_copy(update={"name": "sse"}),
    McpServer(name="stdio", command=STDIO),
)
try:
    with running(*settings, interval=1.0, delays=lambda: repeat(0.2)) as toolbox:
        eventually(lambda: len(toolbox.tools()) == 15)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(exercise, ("http", "sse", "stdio")))
        dies("http", http.kill, http.start)
        dies("sse", sse.kill, sse.start)
        dies("stdio", kill_children, lambda: None)
        before = time.monotonic()
    assert time.monotonic() - before < 6
    assert not os.popen(f"pgrep -P {os.getpid()} -f -- '[-]-stdio'").read()
finally:
    http.kill(); sse.kill()
print("all well")
"""


def test_everything_works_under_gevent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.endswith("all well\n"), done.stdout + done.stderr
