"""Putting hidden turns back into the input of a Responses request.

The input is a flat list of items. An answer is a run of the model's items (reasoning, messages, calls); a call is
answered by an item `..._output` with its `call_id`. The client's history has one run for an answer of several
rounds, without our calls. With `previous_response_id` or `conversation` the provider holds the history itself, our
calls with it; then only what the client could not answer is missing.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any

from aibridge.protocols.editing import elements
from aibridge.protocols.interceptor import Payload
from aibridge.protocols.reading import mapping, parsed_object, sequence, text
from aibridge.protocols.rounds import HiddenTurn, Round, Trail, answer_key

NAME = "responses"
REASONING = "reasoning"

# What the model's part of a conversation consists of, besides its messages and the calls of all kinds.
_OF_MODEL = (REASONING, "compaction", "mcp_list_tools", "mcp_approval_request", "program")


@dataclass(frozen=True, slots=True)
class Item:
    """An item of an input or an output, as it is written and what that says."""

    written: bytes
    data: dict[str, Any]

    @property
    def type(self) -> str:
        """A message may leave out that it is one."""
        return text(self.data.get("type")) or ("message" if "role" in self.data else "")

    @property
    def calls(self) -> str:
        """The id by which the answer to this call is known; "" for anything that nobody has to answer."""
        if self.type == "mcp_approval_request":
            return text(self.data.get("id"))
        return text(self.data.get("call_id")) if self.type.endswith("_call") else ""

    @property
    def answers(self) -> str:
        """The id of the call that this item answers, else "". A local shell's output has it as its `id`."""
        if self.type == "mcp_approval_response":
            return text(self.data.get("approval_request_id"))
        if not self.type.endswith("_output"):
            return ""
        return text(self.data.get("call_id")) or text(self.data.get("id"))

    @property
    def of_model(self) -> bool:
        if self.type == "message":
            return self.data.get("role") == "assistant"
        return self.type in _OF_MODEL or self.type.endswith("_call")

    @property
    def said(self) -> str:
        """What an assistant's message says."""
        return "".join(self._texts("output_text")) if self.type == "message" else ""

    @property
    def asked(self) -> str:
        """What a user's message says."""
        return "\n".join(self._texts("input_text")) if self.data.get("role") == "user" else ""

    def _texts(self, kind: str) -> list[str]:
        content = self.data.get("content")
        if isinstance(content, str):
            return [content]
        parts = [mapping(part) for part in sequence(content)]
        return [text(part.get("text")) for part in parts if part.get("type") == kind]


def item(written: bytes) -> Item:
    return Item(written, parsed_object(written) or {})


def trail(payload: Payload) -> Trail:
    """What an answer to this request follows upon."""
    return reduce(_followed, _groups(_items(payload)), _beginning(payload))


def keys(payload: Payload) -> tuple[str, ...]:
    """The keys of the answers in the history, be it here or with the provider."""
    found = [key for _, key in _keyed(_items(payload), _beginning(payload)) if key]
    return (*found, *_held_keys(payload))


def call_key(call_id: str) -> str:
    """The key of an answer by a call in it, where nothing else of it is known."""
    return f"{NAME}:call:{call_id}"


def response_key(response_id: str) -> str:
    """The key of an answer by what `previous_response_id` calls it."""
    return f"{NAME}:response:{response_id}"


def spoken(past: Round) -> list[bytes]:
    """A whole round as the items that the provider has to see of it."""
    return [*elements(past.said), *past.results]


def woven(payload: Payload, written: Sequence[bytes], turns: Mapping[str, HiddenTurn]) -> list[bytes]:
    """The input with the hidden turns in their original places. A turn that does not fit what the client has made
    of its answer stays out."""
    if not turns:
        return list(written)
    out: list[bytes] = []
    waiting: Round | None = None  # its results belong to the beginning of what the client says next
    for group, key in _keyed(map(item, written), _beginning(payload)):
        turn = turns.get(key or "")
        pieces = _unfolded(group, turn) if turn else None
        if turn is not None and pieces is not None:
            out += pieces
            waiting = turn.rounds[-1] if turn.mixed else None
        elif waiting is not None:
            out += _answered(group, waiting)
            waiting = None
        else:
            out += [each.written for each in group]
    return out if waiting is None else [*out, *_answered([], waiting)]


def held(payload: Payload, turns: Mapping[str, HiddenTurn]) -> HiddenTurn | None:
    """The hidden turn at the end of the history that the provider holds."""
    return next((turns[key] for key in _held_keys(payload) if key in turns), None)


def resumed(written: Sequence[bytes], past: Round) -> list[bytes]:
    """The input that goes on after a round which the provider holds, with our results beside the client's."""
    items = list(map(item, written))
    calls = {each.calls for each in map(item, elements(past.said))} - {""}
    start = next((at for at, each in enumerate(items) if each.answers in calls), 0)
    return [*written[:start], *_answered(items[start:], past)]


def _items(payload: Payload) -> list[Item]:
    """What they say; how they are written does not matter here. An input that is a text is short for a message."""
    given = payload.data.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else sequence(given)
    return [Item(b"", mapping(each)) for each in items]


def _groups(items: Iterable[Item]) -> Iterator[tuple[bool, list[Item]]]:
    """The runs of the model's items, and what stands between them."""
    for of_model, group in groupby(items, key=lambda each: each.of_model):
        yield of_model, list(group)


def _held_keys(payload: Payload) -> list[str]:
    """What the end of the provider's history is known by. A conversation's id is the same at any time, so there
    the calls have to tell, which are answered here but were not made here."""
    previous = text(payload.data.get("previous_response_id"))
    if previous:
        return [response_key(previous)]
    if payload.data.get("conversation") is None:
        return []
    items = _items(payload)
    known = {"", *(each.calls for each in items)}
    return [call_key(each.answers) for each in items if each.answers not in known]


def _beginning(payload: Payload) -> Trail:
    return Trail().followed_by("previous", text(payload.data.get("previous_response_id")))


def _keyed(items: Iterable[Item], before: Trail) -> Iterator[tuple[list[Item], str | None]]:
    """The runs, those of the model's with the key of the answer that they are."""
    for of_model, group in _groups(items):
        yield group, answer_key(NAME, before, *_answer(group)) if of_model else None
        before = _followed(before, (of_model, group))


def _followed(before: Trail, run: tuple[bool, list[Item]]) -> Trail:
    """Clients put instructions anywhere."""
    of_model, group = run
    if of_model:
        return before.answered(*_answer(group))
    for each in group:
        if each.answers:
            before = before.followed_by("tool", "", [each.answers])
        elif each.data.get("role") == "user":
            before = before.followed_by("user", each.asked)
    return before


def _answer(group: Sequence[Item]) -> tuple[str, list[str]]:
    """What it says, and the ids of its calls."""
    return "".join(each.said for each in group), [each.calls for each in group if each.calls]


def _unfolded(shown: Sequence[Item], turn: HiddenTurn) -> list[bytes] | None:
    """The client's run as the rounds that it was; None if it does not fit them."""
    left = deque(shown)
    out: list[bytes] = []
    for each in turn.rounds[:-1] if turn.mixed else turn.rounds:
        for visible in _visible(each):
            if not _copy(left, visible) and visible.type != REASONING:
                return None
        out += spoken(each)
    if turn.mixed:
        out += _filled(turn.rounds[-1], left)
    return [*out, *(each.written for each in left)]


def _filled(past: Round, left: deque[Item]) -> Iterator[bytes]:
    """The items that the client has of a round, with ours between them. Reasoning that the client left out comes
    back too: the provider may want it before the calls that it led to."""
    hidden = _hidden(past)
    for each in map(item, elements(past.said)):
        copy = [] if each.calls in hidden else _copy(left, each)
        if not copy and (each.calls in hidden or each.type == REASONING):
            yield each.written
        yield from (mine.written for mine in copy)


def _copy(left: deque[Item], original: Item) -> list[Item]:
    """Take the client's copy of an item, with reasoning before it that the round lacks because it could not be
    sent back. Many clients leave reasoning out themselves. Nothing, if there is no copy."""
    taken: list[Item] = []
    while original.type != REASONING and left and left[0].type == REASONING:
        taken.append(left.popleft())
    if left and left[0].type == original.type:
        return [*taken, left.popleft()]
    left.extendleft(reversed(taken))
    return []


def _answered(group: Sequence[Item], past: Round) -> list[bytes]:
    """What the client says next with our results, all results in the order of the calls."""
    results = {each.answers: each for each in (*group, *map(item, past.results)) if each.answers}
    order = [call for each in elements(past.said) if (call := item(each).calls) in results]
    rest = [each for each in group if each.answers not in order]
    return [each.written for each in (*(results[call] for call in order), *rest)]


def _visible(past: Round) -> list[Item]:
    hidden = _hidden(past)
    return [each for each in map(item, elements(past.said)) if each.calls not in hidden]


def _hidden(past: Round) -> set[str]:
    return {item(result).answers for result in past.results}
