"""Actions as a toolbox: what the gateway offers of them, and the one way to run them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from aibridge import settings
from aibridge.actions.interpolation import json_text
from aibridge.actions.manifest import CommandRun, HttpRun
from aibridge.actions.runners import command, python
from aibridge.actions.runners.call import Call
from aibridge.actions.runners.http import HttpRunner
from aibridge.actions.runners.output import Output, result
from aibridge.actions.runners.time_limit import TimeLimit
from aibridge.actions.secrets import Secrets
from aibridge.actions.store import Action, Store
from aibridge.interception.toolbox import CallContext, ToolFailed
from aibridge.protocols.tools import Tool, ToolResult

_log = structlog.get_logger("aibridge.actions")


class ActionsToolbox:
    """A Toolbox of the action files in `configured.dir`, read again when they change."""

    def __init__(self, configured: settings.Actions, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = Store(configured, clock)
        self._http = HttpRunner(configured.allowed_hosts)

    def start(self) -> None:
        """Read the folder, so that the first request need not."""
        self._store.snapshot()

    def close(self) -> None:
        self._http.close()

    def wait_until_settled(self, seconds: float) -> bool:
        """It always is: `tools` reads the folder itself."""
        return True

    def tools(self) -> Sequence[Tool]:
        return self._store.snapshot().tools

    def status(self) -> Mapping[str, Any]:
        """`{"actions": {"loaded": number, "problems": ["file:line: message"]}}`; nothing without a folder."""
        snapshot = self._store.snapshot()
        if not snapshot.exists:
            return {}
        return {
            "actions": {"loaded": len(snapshot.actions), "problems": [str(each) for each in snapshot.problems]}
        }

    def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Run the action as its file says now, if its inputs are still those of the tool. Raises ToolFailed. Kind
        python cannot be interrupted: it runs on when the deadline is over."""
        action = self._current(tool)
        limit = TimeLimit(context, action.manifest.timeout)
        secrets = Secrets()
        call = Call(_checked(action, arguments), secrets, limit, action.manifest.max_output_bytes)
        try:
            output = self._run(action, call)
        except ToolFailed as error:
            raise ToolFailed(secrets.redacted(str(error))) from None
        except Exception as error:
            # Its text may hold what was sent; the place is enough to find it.
            _log.error("action broke", action=tool.name, error=type(error).__name__, place=_place(error))
            raise ToolFailed("the gateway failed to run it") from None
        return result(output, secrets, call.max_output_bytes)

    def _current(self, tool: Tool) -> Action:
        action = self._store.snapshot().actions.get(tool.wire_name)
        if action is None:
            raise ToolFailed(f"{tool.name} is no longer available")
        if action.tool.schema != tool.schema:
            raise ToolFailed(f"{tool.name} is no longer available as it was offered: its inputs have changed")
        return action

    def _run(self, action: Action, call: Call) -> Output:
        call.limit.check()
        match action.manifest.run:
            case HttpRun() as run:
                return self._http.run(run, call)
            case CommandRun() as run:
                return command.run(run, self._store.folder, call)
        assert action.function
        return python.run(action.function, call)


def _checked(action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """The declared inputs. Whoever calls has checked them against the schema; here they must be there, and be text
    that can be sent: JSON may spell half a surrogate pair."""
    arguments = action.manifest.arguments(given)
    for declared in action.manifest.inputs:
        if declared.required and declared.name not in arguments:
            raise ToolFailed(f"the argument {declared.name} is missing")
    try:
        json_text(arguments).encode()
    except (TypeError, ValueError, RecursionError):
        raise ToolFailed("the arguments hold something that is no valid JSON or Unicode") from None
    return arguments


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
