"""Putting hidden turns back into the history of a Messages request.

An assistant message with `tool_use` blocks is followed by a user message that begins with a `tool_result` block
for each of them. The client's history has one assistant message for an answer of several rounds, without our
calls.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import last_user_text, mapping, parsed_object, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round, Trail, answer_key

NAME = "messages"

_THINKING = ("thinking", "redacted_thinking")
_INSTRUCTIONS = ("system", "developer")


def trail(payload: Payload) -> Trail:
    """What an answer to this request follows upon."""
    return reduce(_followed, _messages(payload), Trail())


def keys(payload: Payload) -> tuple[str, ...]:
    """The keys of the answers in the history."""
    return tuple(key for key in _keys(_messages(payload)) if key)


def spoken(past: Round) -> list[bytes]:
    """A whole round as the messages that the provider has to see of it."""
    return [_message("assistant", past.said), _message("user", array(past.results))]


def woven(messages: Sequence[bytes], turns: Mapping[str, HiddenTurn]) -> list[bytes]:
    """The messages with the hidden turns in their original places. A turn that does not fit what the client has
    made of its answer stays out."""
    if not turns:
        return list(messages)
    history = [parsed_object(message) or {} for message in messages]
    out: list[bytes] = []
    waiting: Round | None = None  # its results belong to the beginning of the client's next message
    for written, message, key in zip(messages, history, _keys(history), strict=True):
        turn = turns.get(key or "")
        pieces = _unfolded(written, turn) if turn else None
        if pieces is not None and turn is not None:
            out += pieces
            waiting = turn.rounds[-1] if turn.mixed else None
        elif waiting is not None and message.get("role") == "user":
            out.append(_with_results(written, waiting))
            waiting = None
        else:
            out.append(written)
    return out


def _messages(payload: Payload) -> Iterator[dict[str, Any]]:
    return map(mapping, sequence(payload.data.get("messages")))


def _keys(messages: Iterable[dict[str, Any]]) -> Iterator[str | None]:
    """For each message the key of the answer that it is; None for those that are none."""
    before = Trail()
    for message in messages:
        is_answer = message.get("role") == "assistant"
        yield answer_key(NAME, before, _said(message), _ids(message, "tool_use", "id")) if is_answer else None
        before = _followed(before, message)


def _followed(before: Trail, message: dict[str, Any]) -> Trail:
    """Clients add reminders to results, and instructions anywhere."""
    if message.get("role") in _INSTRUCTIONS:
        return before
    if message.get("role") == "assistant":
        return before.answered(_said(message), _ids(message, "tool_use", "id"))
    results = _ids(message, "tool_result", "tool_use_id")
    return before.followed_by("user", "" if results else last_user_text(message) or "", results)


def _said(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(text(mapping(block).get("text")) for block in sequence(content))


def _ids(message: dict[str, Any], kind: str, name: str) -> list[str]:
    blocks = (mapping(block) for block in sequence(message.get("content")))
    return [text(block.get(name)) for block in blocks if block.get("type") == kind]


def _unfolded(written: bytes, turn: HiddenTurn) -> list[bytes] | None:
    """The client's assistant message as the rounds that it was; None if it does not fit them."""
    message = ObjectText(written)
    shown = deque(_blocks(message.value("content") or b"[]"))
    out: list[bytes] = []
    for each in turn.rounds[:-1] if turn.mixed else turn.rounds:
        said = _filled(each, shown)
        if said is None:
            return None
        out += [_message("assistant", array(said)), _message("user", array(each.results))]
    rest = _filled(turn.rounds[-1], shown) if turn.mixed else []
    if rest is None:
        return None
    rest += shown
    return [*out, message.edited(put={"content": array(rest)})] if rest else out


def _filled(past: Round, left: deque[bytes]) -> list[bytes] | None:
    """A round's blocks: the client's copies, taken from `left`, and ours between them. Thinking that the client
    has left out comes back: calls are to stand behind it. None if the copies are others."""
    hidden = {_answered(result) for result in past.results}
    said: list[bytes] = []
    for block in elements(past.said):
        if _call_id(block) in hidden:
            said.append(block)
        elif left and _type(left[0]) == _type(block):
            said.append(left.popleft())
        elif _type(block) in _THINKING:
            said.append(block)
        else:
            return None
    return said


def _with_results(written: bytes, past: Round) -> bytes:
    """The client's message with our results, all results in the order of the calls."""
    message = ObjectText(written)
    blocks = _blocks(message.value("content") or b"[]")
    results = {_answered(block): block for block in (*blocks, *past.results) if _answered(block)}
    order = [call for block in elements(past.said) if (call := _call_id(block)) in results]
    rest = [block for block in blocks if _answered(block) not in order]
    return message.edited(put={"content": array([*(results[call] for call in order), *rest])})


def _blocks(content: bytes) -> list[bytes]:
    """A content that is a text is short for one block."""
    return [b'{"type":"text","text":%b}' % content] if content.startswith(b'"') else elements(content)


def _type(block: bytes) -> str:
    return text((parsed_object(block) or {}).get("type"))


def _call_id(block: bytes) -> str:
    data = parsed_object(block) or {}
    return text(data.get("id")) if data.get("type") == "tool_use" else ""


def _answered(block: bytes) -> str:
    data = parsed_object(block) or {}
    return text(data.get("tool_use_id")) if data.get("type") == "tool_result" else ""


def _message(role: str, content: bytes) -> bytes:
    return b'{"role":"%b","content":%b}' % (role.encode(), content)
