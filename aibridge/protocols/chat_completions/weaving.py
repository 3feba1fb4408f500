"""Putting hidden turns back into the history of a Chat Completions request.

An assistant message with `tool_calls` is followed by one `tool` message for each of them. The client's history has
one assistant message for an answer of several rounds, without our calls; its content is that of all the rounds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import takewhile
from typing import Any

import orjson

from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import last_user_text, mapping, parsed_object, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round, Trail, answer_key

NAME = "chat_completions"

# What a message says beside its content: where servers put a model's reasoning (DeepSeek, vLLM and others;
# OpenRouter and newer vLLM; Copilot), and OpenAI a refusal.
ASIDES = ("reasoning_content", "reasoning", "reasoning_text", "refusal")

# What a message without a content may consist of.
_SUBSTANCE = ("tool_calls", "function_call", "refusal", "audio")

_EMPTY = (b"null", b'""', b"[]")


def trail(payload: Payload) -> Trail:
    """What an answer to this request follows upon."""
    return reduce(_followed, _messages(payload), Trail())


def keys(payload: Payload) -> tuple[str, ...]:
    """The keys of the answers in the history."""
    return tuple(key for key in _keys(_messages(payload)) if key)


def content_text(content: Any) -> str:
    """A content is a text, or parts some of which are texts."""
    return text(content) or "".join(text(mapping(part).get("text")) for part in sequence(content))


def spoken(past: Round) -> list[bytes]:
    """A whole round as the messages that the provider has to see of it."""
    return [past.said, *past.results]


def woven(messages: Sequence[bytes], turns: Mapping[str, HiddenTurn]) -> list[bytes]:
    """The messages with the hidden turns in their original places. A turn that does not fit what the client has
    made of its answer stays out."""
    if not turns:
        return list(messages)
    history = [parsed_object(message) or {} for message in messages]
    found = list(_keys(history))
    out: list[bytes] = []
    at = 0
    while at < len(messages):
        turn = turns.get(found[at] or "")
        pieces = _unfolded(messages[at], history[at], turn) if turn else None
        out += [messages[at]] if pieces is None else pieces
        at += 1
        if turn and turn.mixed and pieces is not None:
            count = sum(1 for _ in takewhile(lambda message: message.get("role") == "tool", history[at:]))
            out += _in_call_order(messages[at : at + count], turn.rounds[-1])
            at += count
    return out


def _messages(payload: Payload) -> Iterator[dict[str, Any]]:
    return map(mapping, sequence(payload.data.get("messages")))


def _keys(messages: Iterable[dict[str, Any]]) -> Iterator[str | None]:
    """For each message the key of the answer that it is; None for those that are none."""
    before = Trail()
    for message in messages:
        is_answer = message.get("role") == "assistant"
        yield answer_key(NAME, before, *_answer(message)) if is_answer else None
        before = _followed(before, message)


def _followed(before: Trail, message: dict[str, Any]) -> Trail:
    """Clients put instructions anywhere."""
    match message.get("role"):
        case "system" | "developer":
            return before
        case "assistant":
            return before.answered(*_answer(message))
        case "tool":
            return before.followed_by("tool", "", [text(message.get("tool_call_id"))])
    return before.followed_by("user", last_user_text(message) or "")


def _answer(message: dict[str, Any]) -> tuple[str, list[str]]:
    """What it says, and the ids of its calls."""
    calls = (mapping(call) for call in sequence(message.get("tool_calls")))
    return content_text(message.get("content")), [text(call.get("id")) for call in calls]


def _unfolded(written: bytes, message: dict[str, Any], turn: HiddenTurn) -> list[bytes] | None:
    """The client's assistant message as the rounds that it was; None if it does not fit them."""
    whole = turn.rounds[:-1] if turn.mixed else turn.rounds
    earlier = [parsed_object(each.said) or {} for each in whole]
    shown = ObjectText(written)
    given = shown.value("content") or b"null"
    said = "".join(content_text(each.get("content")) for each in earlier)
    content = _after(said, given, message.get("content"))
    if content is None:
        return None
    put = _asides_after(message, earlier)
    if content != given:
        put["content"] = content
    if turn.mixed:
        calls = shown.value("tool_calls") if isinstance(message.get("tool_calls"), list) else None
        put["tool_calls"] = array(_filled(turn.rounds[-1], elements(calls or b"[]")))
    says_more = any(message.get(name) and put.get(name) != b"null" for name in _SUBSTANCE)
    remains = turn.mixed or says_more or content not in _EMPTY
    out = [message for each in whole for message in spoken(each)]
    return [*out, shown.edited(put=put)] if remains else out


def _after(said: str, written: bytes, content: Any) -> bytes | None:
    """What follows upon `said` in a message's content; None if it does not begin so."""
    if not said:
        return written
    if isinstance(content, list):
        parts = _parts_after(said, elements(written))
        return None if parts is None else array(parts) if parts else b"null"
    if not text(content).startswith(said):
        return None
    return orjson.dumps(content[len(said) :] or None)


def _parts_after(said: str, parts: Sequence[bytes]) -> list[bytes] | None:
    for at, part in enumerate(parts):
        piece = text((parsed_object(part) or {}).get("text"))
        if piece.startswith(said):
            rest = piece[len(said) :]
            first = [ObjectText(part).edited(put={"text": orjson.dumps(rest)})] if rest else []
            return [*first, *parts[at + 1 :]]
        if not piece or not said.startswith(piece):
            return None
        said = said[len(piece) :]
    return None


def _asides_after(message: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """The edits by which the client's message keeps of its asides those that are not in the earlier rounds."""
    put = {}
    for name in ASIDES:
        whole, said = text(message.get(name)), "".join(text(each.get(name)) for each in earlier)
        if said and whole.startswith(said):
            put[name] = orjson.dumps(whole[len(said) :] or None)
    return put


def _filled(past: Round, shown: Sequence[bytes]) -> Iterator[bytes]:
    """The calls that the client has, with ours between them."""
    hidden = {_answered(result) for result in past.results}
    left = list(shown)
    for call in _calls(past):
        known = next((at for at, given in enumerate(left) if _id(given) == _id(call)), None)
        if _id(call) in hidden:
            yield call
        elif known is not None:
            yield left.pop(known)
    yield from left


def _in_call_order(results: Sequence[bytes], past: Round) -> list[bytes]:
    """The client's tool messages and ours, in the order of the calls; those of other calls behind them."""
    order = [_id(call) for call in _calls(past)]

    def place(result: bytes) -> int:
        answered = _answered(result)
        return order.index(answered) if answered in order else len(order)

    return sorted([*results, *past.results], key=place)


def _calls(past: Round) -> list[bytes]:
    return elements(ObjectText(past.said).value("tool_calls") or b"[]")


def _id(call: bytes) -> str:
    return text((parsed_object(call) or {}).get("id"))


def _answered(result: bytes) -> str:
    return text((parsed_object(result) or {}).get("tool_call_id"))
