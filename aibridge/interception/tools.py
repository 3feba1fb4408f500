"""The tools of one request, and the one door to every call of them.

A catalogue is made once per request and does not change: what the model was offered is what it may call. Every
call goes through `Toolbelt.call`, whoever asks for it: is the tool still there? -> are the arguments valid? ->
does the policy allow it? -> the toolbox, with a deadline -> the result in bounds -> the record. A failure at any
of these is a result for the model, never an error for the client.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jsonschema
import orjson
import structlog
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from aibridge.interception.toolbox import CallContext, Toolbox, ToolFailed
from aibridge.protocols.interceptor import Payload, Tooling
from aibridge.protocols.reading import exact_object
from aibridge.protocols.tools import Image, Text, Tool, ToolCall, ToolResult
from aibridge.records import LONGEST_ID, ToolUsage, shortened
from aibridge.settings import Tools

# Why a call must not be made, None: it may. Whatever it raises counts as a refusal.
Policy = Callable[[Tool, Mapping[str, Any], CallContext], str | None]

_log = structlog.get_logger("aibridge.tools")


def allow_all(tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> str | None:
    """The policy of who has none."""
    return None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What one request offers: its tools in the order of their names, and where each of them is called."""

    tools: tuple[Tool, ...]
    toolboxes: Mapping[str, Toolbox]

    def __contains__(self, name: str) -> bool:
        return name in self.toolboxes

    def tool(self, name: str) -> Tool:
        return next(tool for tool in self.tools if tool.wire_name == name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: the result for the model, the record for us."""

    call: ToolCall
    result: ToolResult
    usage: ToolUsage


NOTHING = Catalogue((), {})


class Toolbelt:
    """All toolboxes of the process. `policy` has the last word on every call."""

    def __init__(
        self,
        toolboxes: Sequence[Toolbox],
        settings: Tools,
        policy: Policy = allow_all,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._toolboxes = toolboxes
        self.settings = settings
        self._policy = policy
        self._clock = clock
        self._left_out: tuple[str, ...] = ()

    def start(self) -> None:
        for toolbox in self._toolboxes:
            toolbox.start()

    def close(self) -> None:
        for toolbox in self._toolboxes:
            toolbox.close()

    def status(self) -> dict[str, Any]:
        return {name: value for toolbox in self._toolboxes for name, value in toolbox.status().items()}

    @property
    def in_use(self) -> bool:
        """Whether there is anything to offer, now or at another time."""
        return any(toolbox.status() for toolbox in self._toolboxes)

    def catalogue(self, payload: Payload, tooling: Tooling) -> Catalogue:
        """What is offered to this request, which may be nothing."""
        if self._skips(payload, tooling):
            return NOTHING
        taken = tooling.client_tools(payload)
        offers = self._offers()
        ours = sorted(offers.keys() - taken)
        if tooling.most_tools is not None and len(ours) + len(taken) > tooling.most_tools:
            room = max(0, tooling.most_tools - len(taken))
            self._tell_left_out(tuple(ours[room:]))
            ours = ours[:room]
        return Catalogue(
            tuple(offers[name][0] for name in ours),
            {name: toolbox for name in ours for toolbox in [offers[name][1]]},
        )

    def call(self, catalogue: Catalogue, call: ToolCall, context: CallContext) -> Outcome:
        """Make one call and wait for it. Whatever goes wrong is in the outcome."""
        began = self._clock()
        tool = catalogue.tool(call.name)
        try:
            result = self._called(tool, catalogue.toolboxes[call.name], call, context)
        except ToolFailed as failure:
            return failed(tool, call, context, str(failure), self._clock() - began)
        except Exception:  # a bug of a toolbox
            _log.exception("a tool call crashed", tool=tool.name, server=tool.server)
            return failed(tool, call, context, "the tool failed unexpectedly", self._clock() - began)
        result = bounded(result, tool.max_result_bytes or self.settings.max_result_bytes)
        error = _text_of(result) if result.is_error else None
        return Outcome(call, result, usage(tool, call, context, error, self._clock() - began))

    def deadline(self, catalogue: Catalogue, call: ToolCall, latest: float) -> float:
        """Until when a call that begins now may take, on the clock."""
        timeout = catalogue.tool(call.name).timeout or self.settings.call_timeout
        return min(self._clock() + timeout, latest)

    def _skips(self, payload: Payload, tooling: Tooling) -> bool:
        settings = self.settings
        if settings.max_rounds == 1 or any(part in payload.model for part in settings.skip_models):
            return True
        reason = tooling.declined(payload)
        unskipped = {
            "tool_choice_none": not settings.skip_tool_choice_none,
            "continued": not settings.skip_continued,
        }
        return reason is not None and not unskipped.get(reason, False)

    def _tell_left_out(self, names: tuple[str, ...]) -> None:
        """Once, as long as it is the same."""
        if names != self._left_out:
            self._left_out = names
            _log.warning("too many tools for a provider", left_out=names)

    def _offers(self) -> dict[str, tuple[Tool, Toolbox]]:
        """By wire name; of two tools with one name that of the first toolbox counts."""
        offers: dict[str, tuple[Tool, Toolbox]] = {}
        for toolbox in self._toolboxes:
            for tool in toolbox.tools():
                offers.setdefault(tool.wire_name, (tool, toolbox))
        return offers

    def _called(self, tool: Tool, toolbox: Toolbox, call: ToolCall, context: CallContext) -> ToolResult:
        if not any(other.wire_name == tool.wire_name for other in toolbox.tools()):
            raise ToolFailed(f"the tool {tool.name} is not available any more")
        arguments = valid_arguments(tool, call.arguments)
        self._permit(tool, arguments, context)
        if self._clock() >= context.deadline:
            raise ToolFailed("there is no time left for this call")
        return toolbox.call(tool, arguments, context)

    def _permit(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> None:
        try:
            refusal = self._policy(tool, arguments, context)
        except Exception:  # fail closed
            _log.exception("the tool policy failed", tool=tool.name, server=tool.server)
            refusal = "the policy could not be asked"
        if refusal is not None:
            raise ToolFailed(f"the call is not allowed: {refusal}")


def valid_arguments(tool: Tool, written: str) -> dict[str, Any]:
    """The arguments as the tool's schema wants them. Raises ToolFailed with what is wrong."""
    arguments = exact_object(written.encode("utf-8", "replace") or b"{}")
    if arguments is None:
        raise ToolFailed(f"the arguments are not a JSON object: {shortened(written, 200)}")
    try:
        error = jsonschema.exceptions.best_match(_validator(orjson.dumps(tool.schema)).iter_errors(arguments))
        problem = f"{error.json_path}: {shortened(error.message, 500)}" if error is not None else ""
    except RecursionError:
        raise ToolFailed("the arguments are nested too deeply") from None
    except Unresolvable:
        raise ToolFailed("the schema of the tool refers to something that is not there") from None
    if problem:
        raise ToolFailed(f"the arguments are not valid: {problem}")
    return arguments


@lru_cache(maxsize=1024)
def _validator(schema: bytes) -> Validator:
    """Never fetches a schema that another one refers to: the registry knows none."""
    parsed = orjson.loads(schema)
    kind = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
    validator: Validator = kind(parsed, registry=Registry())
    return validator


def bounded(result: ToolResult, limit: int) -> ToolResult:
    """The result with at most `limit` bytes of content; what is cut off is marked."""
    parts: list[Text | Image] = []
    left = limit
    for number, part in enumerate(result.parts):
        size = _size(part)
        if size > left:
            cut = shortened(part.text, left) if isinstance(part, Text) else ""
            more = len(result.parts) - number - 1
            note = f"[cut: {len(cut.encode())} of {size} bytes" + (f", and {more} more parts]" if more else "]")
            parts.append(Text(f"{cut}\n{note}".lstrip()))
            break
        parts.append(part)
        left -= size
    whole = result.whole if len(result.whole.encode("utf-8", "replace")) <= limit else ""
    return replace(result, parts=tuple(parts), whole=whole)


def _size(part: Text | Image) -> int:
    return len(part.text.encode("utf-8", "replace")) if isinstance(part, Text) else len(part.data)


def failed(tool: Tool, call: ToolCall, context: CallContext, reason: str, seconds: float | None) -> Outcome:
    """The outcome of a call that gave no result of its own."""
    result = ToolResult((Text(reason),), is_error=True)
    return Outcome(call, result, usage(tool, call, context, reason, seconds))


def usage(tool: Tool, call: ToolCall, context: CallContext, error: str | None, seconds: float | None) -> ToolUsage:
    return ToolUsage(
        interception_id=context.interception_id,
        provider_response_id=context.response_id[:LONGEST_ID],
        provider_tool_call_id=call.id[:LONGEST_ID] or None,
        tool=tool.name[:LONGEST_ID],
        input=call.arguments,
        server_url=tool.server,
        injected=True,
        invocation_error=None if error is None else shortened(error),
        duration_ms=None if seconds is None else round(seconds * 1000, 3),
    )


def _text_of(result: ToolResult) -> str:
    texts = [part.text for part in result.parts if isinstance(part, Text)]
    return "\n".join(texts) or "the tool reported an error"
