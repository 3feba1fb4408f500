"""Putting hidden turns back into the history of a Messages request.

An assistant message with `tool_use` blocks is followed by a user message that begins with a `tool_result` block
for each of them. The client's history has one assistant message for an answer of several rounds, without our
calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import last_turn, last_user_text, mapping, parsed_object, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round, call_key, text_key

NAME = "messages"

_THINKING = ("thinking", "redacted_thinking")


def asked(payload: Payload) -> str:
    """What an answer to this request answers, as text."""
    return _asked(sequence(payload.data.get("messages")))


def keys(payload: Payload) -> tuple[str, ...]:
    """The keys of the answers in the history."""
    messages = [mapping(message) for message in sequence(payload.data.get("messages"))]
    found = (_key(message, messages[:at]) for at, message in enumerate(messages))
    return tuple(key for key in found if key)


def answer_key(question: str, call_ids: Sequence[str], said: str) -> str | None:
    return call_key(NAME, call_ids[0]) if call_ids else text_key(NAME, question, said)


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
    for at, (written, message) in enumerate(zip(messages, history, strict=True)):
        turn = turns.get(_key(message, history[:at]) or "")
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


def _asked(messages: Sequence[Any]) -> str:
    turn = last_turn(list(messages))
    return last_user_text(turn) or "".join(_ids(turn, "tool_result", "tool_use_id"))


def _key(message: dict[str, Any], before: Sequence[Any]) -> str | None:
    if message.get("role") != "assistant":
        return None
    content = message.get("content")
    blocks = [mapping(block) for block in sequence(content)]
    said = content if isinstance(content, str) else "".join(text(b.get("text")) for b in blocks)
    return answer_key(_asked(before), _ids(message, "tool_use", "id"), said)


def _ids(message: dict[str, Any], kind: str, name: str) -> list[str]:
    blocks = (mapping(block) for block in sequence(message.get("content")))
    return [text(block.get(name)) for block in blocks if block.get("type") == kind]


def _unfolded(written: bytes, turn: HiddenTurn) -> list[bytes] | None:
    """The client's assistant message as the rounds that it was; None if it does not fit them."""
    message = ObjectText(written)
    shown = _blocks(message.value("content") or b"[]")
    whole = turn.rounds[:-1] if turn.mixed else turn.rounds
    bare = not any(kind in _THINKING for kind in map(_type, shown))  # many clients leave thinking out
    seen = [_type(block) for each in whole for block in _visible(each) if not (bare and _type(block) in _THINKING)]
    if [_type(block) for block in shown[: len(seen)]] != seen:
        return None
    rest = shown[len(seen) :]
    if turn.mixed:
        rest = list(_filled(turn.rounds[-1], rest, bare))
    out = [message for each in whole for message in spoken(each)]
    return [*out, message.edited(put={"content": array(rest)})] if rest else out


def _filled(past: Round, shown: Sequence[bytes], bare: bool) -> Iterator[bytes]:
    """The blocks that the client has, with ours between them."""
    hidden, left = _hidden(past), iter(shown)
    for block in elements(past.said):
        if _call_id(block) in hidden:
            yield block
        elif not (bare and _type(block) in _THINKING):
            yield from (block for block in [next(left, None)] if block is not None)
    yield from left


def _with_results(written: bytes, past: Round) -> bytes:
    """The client's message with our results, all results in the order of the calls."""
    message = ObjectText(written)
    blocks = _blocks(message.value("content") or b"[]")
    results = {_answered(block): block for block in (*blocks, *past.results) if _answered(block)}
    order = [call for block in elements(past.said) if (call := _call_id(block)) in results]
    rest = [block for block in blocks if _answered(block) not in order]
    return message.edited(put={"content": array([*(results[call] for call in order), *rest])})


def _visible(past: Round) -> list[bytes]:
    hidden = _hidden(past)
    return [block for block in elements(past.said) if _call_id(block) not in hidden]


def _hidden(past: Round) -> set[str]:
    return {_answered(result) for result in past.results}


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
