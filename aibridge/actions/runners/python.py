"""Python actions: a function of the operator's. It cannot be interrupted; who waits for it may only walk away."""

from collections.abc import Callable
from typing import Any

from aibridge.actions.interpolation import json_text
from aibridge.actions.runners.call import Call
from aibridge.actions.runners.output import Head, Output
from aibridge.interception.toolbox import ToolFailed

LONGEST_REASON = 2000  # characters of an exception's text


def run(function: Callable[..., Any], call: Call) -> Output:
    """Calls it with the arguments as keywords. Raises ToolFailed with the text of whatever it raises."""
    try:
        value = function(**call.arguments)
    except (Exception, SystemExit) as error:
        raise ToolFailed(f"{type(error).__name__}: {error}"[:LONGEST_REASON]) from None
    if isinstance(value, bytes):
        head = Head(call.max_output_bytes)
        head.feed(value)
        return Output(head.text(), head.size, head.is_cut)
    text = _text(value)
    return Output(text, len(text.encode("utf-8", "replace")))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json_text(value)
    except (TypeError, ValueError, RecursionError):
        raise ToolFailed(f"the function returned a {type(value).__name__} that JSON cannot say") from None
