"""Injected tools in Chat Completions, pure: what the provider is asked and what the client sees of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.chat_completions.pieces import merged
from aibridge.protocols.rounds import Composer, HiddenTurn, Round, Trail, answer_key
from aibridge.protocols.sse import Decoder, encode
from aibridge.protocols.tools import Image, Text, Tool, ToolCall, ToolResult
from tests.protocols.playing import TOOLS, Cut, Played, play
from tests.protocols.sdk import chat_completion
from tests.protocols.test_messages import json_values

TOOLING = CHAT_COMPLETIONS.tooling
OURS = ("bmcp_", "bact_")
READ = {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}, "x": 1}
PATCH = {"type": "custom", "custom": {"name": "patch"}}
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather?"}]
DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


def call(call_id: str, name: str = "bmcp_weather_forecast", **arguments: Any) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": function}


def read(call_id: str) -> Json:
    return call(call_id, "Read", path="/etc/hosts")


def custom(call_id: str) -> Json:
    return {"id": call_id, "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}


def chunk(number: int = 1, choice: Json | None = None, **fields: Any) -> bytes:
    """One event; `123456789012345678901` and `nobody_knows` stand for what must survive an edit of it."""
    choices = [] if choice is None else [{"index": 0, "logprobs": None, "finish_reason": None, **choice}]
    told = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5"}
    told |= {"nobody_knows": 123456789012345678901} if choices else {}
    return encode("", json.dumps({**told, "choices": choices, **fields}, ensure_ascii=False).encode())


def delta(number: int = 1, finish: str | None = None, **fields: Any) -> bytes:
    return chunk(number, {"delta": fields, "finish_reason": finish})


def pieces_of(index: int, whole: Json) -> list[Json]:
    """A call as OpenAI streams it: first what it is, then its arguments."""
    kind = whole["type"]
    name, said = "input" if kind == "custom" else "arguments", whole[kind]
    text = said[name]
    begin = {"index": index, "id": whole["id"], "type": kind, kind: {**said, name: ""}}
    return [begin, *({"index": index, kind: {name: piece}} for piece in (text[:3], text[3:]))]


@dataclass(frozen=True)
class Said:
    """One round of the provider's: the same message as a stream and as a body."""

    number: int
    message: Json
    finish_reason: str

    @property
    def usage(self) -> Json:
        details = {"cached_tokens": 5}
        prompt, completion = 10 * self.number, self.number
        told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {**told, "prompt_tokens_details": details}

    def stream(self, *, usage: bool = True) -> bytes:
        number = self.number
        events = [delta(number, role="assistant", content="", refusal=None)]
        for name in ("reasoning_content", "content", "refusal"):
            text = self.message.get(name) or ""
            half = len(text) // 2
            events += [delta(number, **{name: piece}) for piece in (text[:half], text[half:]) if piece]
        for index, whole in enumerate(self.message.get("tool_calls", ())):
            events += [delta(number, tool_calls=[piece]) for piece in pieces_of(index, whole)]
        events += [delta(number, self.finish_reason)]
        events += [chunk(number, usage=self.usage)] if usage else []
        return b"".join([b": keep-alive\n\n", *events, DONE])

    def body(self) -> bytes:
        choice = {"index": 0, "message": self.message, "finish_reason": self.finish_reason, "logprobs": None}
        told = {"id": f"chatcmpl-{self.number}", "object": "chat.completion", "created": 1, "model": "gpt-5"}
        return json.dumps({**told, "choices": [choice], "usage": self.usage}, ensure_ascii=False).encode()


def message(content: str | None, *calls: Json, **more: Any) -> Json:
    return {"role": "assistant", "content": content, **more, **({"tool_calls": list(calls)} if calls else {})}


# What the provider says, round by round.
DIALOGUES: dict[str, list[tuple[Json, str]]] = {
    "nothing of ours": [(message("Rain.", read("r1"), reasoning_content="hm"), "tool_calls")],
    "one call": [(message(None, call("a")), "tool_calls"), (message("Rain."), "stop")],
    "text around": [
        (message("I look. ", call("a", city="Zürich 🌧"), reasoning_content="hm"), "tool_calls"),
        (message("And the time. ", call("b", "bact_clock")), "tool_calls"),
        (message("Rain at ten.", reasoning_content=" so"), "stop"),
    ],
    "parallel": [
        (message("Both.", call("a", city="A"), call("b", city="B"), call("c", "bact_clock")), "tool_calls"),
        (message("Done."), "stop"),
    ],
    "calls of the client's later": [
        (message("First. ", call("a")), "tool_calls"),
        (message("Then.", read("r1"), read("r2")), "tool_calls"),
    ],
    "only calls": [
        (message(None, call("a")), "tool_calls"),
        (message(None, read("r1")), "tool_calls"),
    ],
    "text, then a bare call": [
        (message("I look.", call("a")), "tool_calls"),
        (message(None, read("r1")), "tool_calls"),
    ],
    "mixed, ours first": [(message(None, call("a"), read("r1"), read("r2"), call("b")), "tool_calls")],
    "mixed, theirs first": [(message("I look.", read("r1"), call("a"), read("r2")), "tool_calls")],
    "mixed later": [
        (message("First. ", call("a"), reasoning_content="hm"), "tool_calls"),
        (message("Then.", read("r1"), call("b"), reasoning_content="on"), "tool_calls"),
    ],
    "a refusal": [(message("Hm. ", call("a")), "tool_calls"), (message(None, refusal="I will not."), "stop")],
    "stop with calls": [(message("Hm. ", call("a")), "stop"), (message("Rain."), "stop")],
    "cut": [(message("I", call("a")), "length")],
    "cut later": [(message(None, call("a")), "tool_calls"), (message("No", call("b")), "content_filter")],
}
SEVERAL = [name for name, rounds in DIALOGUES.items() if len(rounds) > 1 or name.startswith("mixed")]


def said(name: str) -> list[Said]:
    return [Said(n, content, reason) for n, (content, reason) in enumerate(DIALOGUES[name], 1)]


def request(messages: Any = QUESTION, *, tools: Any = (READ, PATCH), usage: bool = True, **fields: Any) -> bytes:
    given = {"tools": list(tools)} if tools else {}
    asked = {"stream_options": {"include_usage": True}} if usage else {}
    return json.dumps({"model": "gpt-5", **given, **asked, **fields, "messages": messages}).encode()


def played(name: str, *, stream: bool, body: bytes | None = None, **options: Any) -> Played:
    answers = [each.stream() if stream else each.body() for each in said(name)]
    return play(CHAT_COMPLETIONS, body or request(), answers, stream=stream, **options)


def streamed(*answers: bytes, body: bytes | None = None, **options: Any) -> Played:
    return play(CHAT_COMPLETIONS, body or request(), answers, stream=True, **options)


def is_ours(whole: Json) -> bool:
    return str(whole.get("function", {}).get("name")).startswith(OURS)


def whole_answer(name: str) -> Json:
    """What the client is to hold in the end."""
    rounds = said(name)
    calls = [each for each in rounds[-1].message.get("tool_calls", ()) if not is_ours(each)]
    texts = {
        field: "".join(one.message.get(field) or "" for one in rounds)
        for field in ("content", "reasoning_content", "refusal")
    }
    reason = rounds[-1].finish_reason
    usage = {
        **{field: sum(one.usage[field] for one in rounds) for field in ("prompt_tokens", "completion_tokens")},
        "total_tokens": sum(one.usage["total_tokens"] for one in rounds),
        "prompt_tokens_details": {"cached_tokens": 5 * len(rounds)},
    }
    return {"id": "chatcmpl-1", "calls": calls, "finish_reason": reason, "usage": usage, **texts}


def held(completion: Json) -> Json:
    """Of an answer what must be right, without the SDK's own additions."""
    (choice,) = completion["choices"]
    got = choice["message"]
    assert got["role"] == "assistant"
    calls = [{k: v for k, v in each.items() if k != "index"} for each in got.get("tool_calls") or ()]
    for each in calls:
        each.get("function", {}).pop("parsed_arguments", None)
    texts = {name: got.get(name) or "" for name in ("content", "reasoning_content", "refusal")}
    told = {"id": completion["id"], "finish_reason": choice["finish_reason"], "usage": completion["usage"]}
    return {**told, "calls": calls, **texts}


def data_of(stream: bytes) -> list[Json]:
    lines = [line[6:] for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def usages_of(stream: bytes) -> list[Json]:
    return [data["usage"] for data in data_of(stream) if data.get("usage")]


# --- one answer --------------------------------------------------------------------------------------------------


def rebuilt(stream: bytes) -> Json:
    """The SDK does not give out a completion that was cut; but for that it is the same as any other."""
    for reason in (b"length", b"content_filter"):
        if b'"finish_reason": "%b"' % reason in stream:
            whole = rebuilt(stream.replace(b'"finish_reason": "%b"' % reason, b'"finish_reason": "stop"'))
            return whole | {"finish_reason": reason.decode()}
    return held(chat_completion(stream))


@pytest.mark.parametrize("name", DIALOGUES)
def test_the_sdk_rebuilds_the_message_that_the_client_should_see(name: str) -> None:
    assert rebuilt(played(name, stream=True).client) == whole_answer(name)


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_blocking_client_gets_the_same_message(name: str) -> None:
    client = json.loads(played(name, stream=False).client)
    assert held(client) == whole_answer(name)
    got = client["choices"][0]["message"]
    assert ("tool_calls" in got) is bool(whole_answer(name)["calls"])
    assert got["content"] == (whole_answer(name)["content"] or None)


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_of_ours_reaches_the_client(name: str, stream: bool) -> None:
    client = played(name, stream=stream).client.decode()
    for word in (*OURS, "result of", '"a"', '"b"', '"c"', "chatcmpl-2", "chatcmpl-3"):
        assert word not in client


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_stream_has_one_of_everything(name: str) -> None:
    client = played(name, stream=True).client
    events = data_of(client)
    choices = [choice for data in events for choice in data["choices"]]
    assert sum(choice["finish_reason"] is not None for choice in choices) == 1
    assert sum("role" in choice["delta"] for choice in choices) == 1
    assert client.count(DONE) == len(usages_of(client)) == 1
    assert events[-1]["choices"] == []
    assert client.endswith(DONE)
    indexes = [piece["index"] for choice in choices for piece in choice["delta"].get("tool_calls", ())]
    assert list(dict.fromkeys(indexes)) == list(range(len(set(indexes))))
    assert all(choice["delta"] for choice in choices if choice["finish_reason"] is None)
    assert client.count(b'"nobody_knows": 123456789012345678901') == len(choices)


@pytest.mark.parametrize("stream", [True, False])
def test_with_nothing_to_hide_the_bytes_are_the_providers(stream: bool) -> None:
    (one,) = said("nothing of ours")
    assert played("nothing of ours", stream=stream).client == (one.stream() if stream else one.body())
    crlf = one.stream().replace(b"\n", b"\r\n") + b"data: half an eve"
    assert streamed(crlf).client == crlf


def test_calls_of_before_there_were_tools_are_the_clients() -> None:
    stream = b"".join(
        [
            delta(role="assistant", content=None, function_call={"name": "bact_clock", "arguments": ""}),
            delta(function_call={"arguments": "{}"}),
            delta(finish="function_call"),
            DONE,
        ]
    )
    one = streamed(stream)
    assert one.client == stream
    assert one.turns[0].mixed
    assert not one.turns[0].calls


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_pieces_of_any_size_give_the_same(name: str, size: int) -> None:
    def pieces(answer: bytes) -> list[bytes]:
        return [answer[start : start + size] for start in range(0, len(answer), size)]

    assert played(name, stream=True, cut=pieces).client == played(name, stream=True).client
    assert played(name, stream=False, cut=pieces).client == played(name, stream=False).client


def test_splits_everywhere_give_the_same() -> None:
    """Every byte is the splitter's matter (test_sse.py)."""
    whole = played("text around", stream=True)
    for at in range(0, max(len(each.stream()) for each in said("text around")), 7):
        halves: Cut = lambda answer, at=at: [answer[:at], answer[at:]]  # type: ignore[misc]  # noqa: E731
        assert played("text around", stream=True, cut=halves).client == whole.client


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_chunking_of_any_spelling_gives_the_same(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(DIALOGUES)))
    ending = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    cuts = data.draw(st.lists(st.integers(0, 2000), max_size=12))

    def pieces(answer: bytes) -> list[bytes]:
        borders = [0, *sorted(at for at in cuts if at < len(answer)), len(answer)]
        return [answer[start:end] for start, end in pairwise(borders)]

    answers = [each.stream().replace(b"\n", ending) for each in said(name)]
    cut = streamed(*answers, cut=pieces)
    assert cut.client == streamed(*answers).client
    assert rebuilt(cut.client) == whole_answer(name)
    assert cut.bodies == played(name, stream=True).bodies


def composer(*, stream: bool = True) -> Composer:
    return TOOLING.request(CHAT_COMPLETIONS.parse(request()), TOOLS, {}, True).compose(event_stream=stream)


def test_text_comes_before_its_round_ends() -> None:
    """Also in a round that ends in a call of ours."""
    stream = said("text around")[0].stream()
    end = stream.index(b"\n\n", stream.index(b"I lo")) + 2
    machine = composer()
    assert machine.empty
    assert b"I lo" in machine.feed(stream[:end])
    assert not machine.empty


@pytest.mark.parametrize("name", ["one call", "text around"])
def test_a_round_that_broke_off_is_not_run(name: str) -> None:
    whole = said(name)[0].stream()
    for end in range(whole.index(b'"finish_reason": "tool_calls"')):
        machine = composer()
        shown = machine.feed(whole[:end])
        assert machine.turn().cut
        assert not machine.ended
        shown += machine.finish()
        assert not any(word.encode() in shown for word in ("bm", "bact"))
        assert machine.ended


@pytest.mark.parametrize(("name", "shown"), [("", True), ("bmcp_wea", False)])
def test_of_a_stream_that_died_before_it_named_a_call_half_a_name_of_ours_is_not_shown(
    name: str, shown: bool
) -> None:
    begun = delta(tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": {"name": name}}])
    machine = composer()
    assert machine.feed(begun) == b""
    assert machine.finish() == (begun if shown else b"")


def test_an_error_in_the_stream_goes_on_and_nothing_is_run() -> None:
    whole = said("one call")[0].stream()
    error = chunk(error={"message": "overloaded", "code": 502})
    one = streamed(whole.replace(DONE, error + b": comment\n\n" + DONE))
    assert error + b": comment\n\n" in one.client
    assert one.turns[0].cut
    assert len(one.bodies) == 1


# --- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_client_that_did_not_ask_is_told_no_usage(name: str) -> None:
    client = played(name, stream=True, body=request(usage=False)).client
    assert usages_of(client) == []
    assert client.endswith(DONE)


def running(number: int) -> bytes:
    """A round of a server that puts running totals into every chunk."""

    def usage(completion: int) -> Json:
        return {"prompt_tokens": 6000, "completion_tokens": completion, "total_tokens": 6000 + completion}

    calls = pieces_of(0, call("a"))[:1] if number == 1 else []
    first = {"role": "assistant", "content": "hi", **({"tool_calls": calls} if calls else {})}
    reason = "tool_calls" if calls else "stop"
    told: list[tuple[Json, int]] = [({"delta": first}, 10), ({"delta": {}}, 20)]
    told.append(({"delta": {}, "finish_reason": reason}, 30))
    return b"".join([chunk(number, choice, usage=usage(tokens)) for choice, tokens in told]) + DONE


@pytest.mark.parametrize("asked", [True, False])
def test_of_running_totals_the_last_counts_for_each_round(asked: bool) -> None:
    usages = usages_of(streamed(running(1), running(2), body=request(usage=asked)).client)
    assert [usage["completion_tokens"] for usage in usages] == [10, 20, 40, 50, 60]
    assert usages[-1] == {"prompt_tokens": 12000, "completion_tokens": 60, "total_tokens": 12060}


def test_a_usage_chunk_that_tells_more_goes_on() -> None:
    extra = chunk(usage={"prompt_tokens": 1}, citations=["c"])
    stream = delta(role="assistant", content="x") + delta(finish="stop") + extra + DONE
    assert streamed(stream, body=request(usage=False)).client == stream


def test_content_in_the_chunk_that_ends_a_round_is_not_lost() -> None:
    end = chunk(
        1,
        {"delta": {"role": "assistant", "content": "I look.", "tool_calls": [call("a")]}, "finish_reason": "stop"},
        usage={"completion_tokens": 3},
    )
    late = delta(content=" Now.") + delta(obfuscation="")
    one = streamed(end + late + DONE, chunk(2, {"delta": {"content": " Rain."}, "finish_reason": "stop"}) + DONE)
    got = chat_completion(one.client)
    assert held({**got, "usage": None})["content"] == "I look. Now. Rain."
    assert usages_of(one.client) == []
    one = streamed(end + late + DONE, rounds=1)
    assert [data["choices"][0]["finish_reason"] for data in data_of(one.client)] == [None, None, "stop", None]
    assert usages_of(one.client) == [{"completion_tokens": 3}]


# --- calls in all shapes -----------------------------------------------------------------------------------------

END = said("one call")[1].stream()


def calling(*pieces: Json, finish: str = "tool_calls") -> bytes:
    chunks = [delta(tool_calls=[piece]) for piece in pieces]
    return b"".join([delta(role="assistant", content=None), *chunks, delta(finish=finish), DONE])


def function(index: int | None, call_id: Any = None, **fields: Any) -> Json:
    placed = {} if index is None else {"index": index}
    return {**placed, **({"id": call_id} if call_id else {}), "function": fields}


FORECAST = "bmcp_weather_forecast"
SHAPES: dict[str, list[Json]] = {
    "nonzero first index": [function(1, "a", name=FORECAST, arguments=""), function(1, arguments='{"n":1}')],
    "no index": [function(None, "a", name=FORECAST, arguments='{"n"'), function(None, arguments=":1}")],
    "late name": [
        function(0, "a"),
        function(0, arguments='{"n"'),
        function(0, name=FORECAST),
        function(0, arguments=":1}"),
    ],
    "null name": [
        function(0, "a", name=FORECAST, arguments=None),
        function(0, name=None, arguments='{"n":'),
        function(0, name="", arguments="1}"),
    ],
    "split name": [
        function(0, "a", name="bmcp_wea"),
        function(0, name="ther_forecast"),
        function(0, arguments='{"n":1}'),
    ],
    "repeated name": [
        function(0, "a", name=FORECAST, arguments='{"n"'),
        function(0, name=FORECAST, arguments=":1}"),
    ],
    "whole object": [function(0, "a", name=FORECAST, arguments={"n": 1})],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_calls_of_ours_are_understood_in_all_shapes(shape: str) -> None:
    one = streamed(calling(*SHAPES[shape]), END)
    assert [json.loads(each.arguments) for each in one.turns[0].calls] == [{"n": 1}]
    assert (one.turns[0].calls[0].id, one.turns[0].calls[0].name) == ("a", FORECAST)
    (made,) = one.questions[1]["messages"][1]["tool_calls"]
    assert (made["id"], made["type"], made["function"]["name"]) == ("a", "function", FORECAST)
    assert json.loads(made["function"]["arguments"]) == {"n": 1}
    assert "index" not in made
    got = chat_completion(one.client)
    assert got["choices"][0]["message"]["content"] == "Rain."
    assert b"weather" not in one.client
    assert b'"index": 1' not in one.client


CLIENTS: dict[str, list[Json]] = {
    "beginning of a name of ours": [function(0, "r", name="bmcp_weather"), function(0, arguments="{}")],
    "late name": [function(0, "r"), function(0, name="Read"), function(0, arguments="{}")],
    "never named": [function(0, "r", arguments="{}")],
    "nonzero first index": [function(3, "r", name="Read", arguments="{}")],
    "whole, with one index": [
        function(0, "r", name="Read", arguments="{}"),
        function(0, "s", name="Read", arguments="{}"),
    ],
    "custom, with a name of ours": [{"index": 0, "id": "r", "custom": {"name": "bact_clock", "input": ""}}],
}


@pytest.mark.parametrize("shape", CLIENTS)
def test_calls_of_the_clients_go_on_as_they_came(shape: str) -> None:
    stream = calling(*CLIENTS[shape])
    one = streamed(stream)
    assert one.client == stream
    assert not one.turns[0].calls
    assert one.turns[0].mixed


def test_chunks_wait_for_a_name() -> None:
    machine = composer()
    first, second = delta(tool_calls=[function(0, "r")]), delta(content="x")
    assert machine.feed(first + b": comment\n\n" + second) == b""
    named = delta(tool_calls=[function(0, name="Read")])
    assert machine.feed(named) == first + b": comment\n\n" + second + named


def test_whole_calls_with_one_index_are_told_apart() -> None:
    pieces = [
        function(0, "r1", name="Read", arguments="{}"),
        function(0, "a", name=FORECAST, arguments='{"n":1}'),
        function(0, "r2", name="Read", arguments='{"n":2}'),
        function(0, "b", name="bact_clock", arguments=""),
    ]
    one = streamed(calling(*pieces))
    assert one.turns[0].calls == (ToolCall("a", FORECAST, '{"n":1}'), ToolCall("b", "bact_clock", "{}"))
    got = chat_completion(one.client)["choices"][0]["message"]["tool_calls"]
    assert [(each["id"], each["function"]["arguments"]) for each in got] == [("r1", "{}"), ("r2", '{"n":2}')]


def test_calls_in_one_chunk_are_parted() -> None:
    wholes = [call("a"), custom("p"), None, read("r")]
    numbered = [{"index": at, **whole} if whole else None for at, whole in enumerate(wholes)]
    one = streamed(delta(content="x", tool_calls=numbered) + delta(finish="tool_calls") + DONE)
    (first, _) = data_of(one.client)
    assert [(p["index"], p["id"]) for p in first["choices"][0]["delta"]["tool_calls"]] == [(0, "p"), (1, "r")]
    made = json.loads(one.past[0].said)["tool_calls"]
    assert made == [call("a"), custom("p"), read("r")]


def test_arguments_that_are_no_object_are_not_sent_back() -> None:
    for answer in (
        calling(function(0, "a", name="bact_clock", arguments='{"cut')),
        Said(1, message(None, call("b"), call("a", "bact_clock")), "tool_calls")
        .body()
        .replace(b'"bact_clock", "arguments": "{}"', b'"bact_clock", "arguments": "{\\"cut"'),
    ):
        stream = answer.startswith(b"data")
        one = play(CHAT_COMPLETIONS, request(), [answer, END if stream else answer], stream=stream, rounds=2)
        assert one.turns[0].calls[-1] == ToolCall("a", "bact_clock", '{"cut')
        made = one.questions[1]["messages"][1]["tool_calls"][-1]
        assert made == call("a", "bact_clock")


def test_what_servers_put_into_calls_and_messages_goes_back_to_them() -> None:
    signed = {**function(0, "a", name=FORECAST, arguments="{}"), "extra_content": {"google": {"s": "x"}}}
    stream = b"".join(
        [
            delta(role="assistant", content="", reasoning_details=[{"text": "h"}], refusal=None),
            delta(reasoning_details=[{"text": "m"}], reasoning="h", audio={"id": "1", "data": "A"}, level=1),
            delta(role="assistant", reasoning="m", tool_calls=[signed], audio={"data": "B"}, level=2),
            delta(finish="tool_calls"),
            DONE,
        ]
    )
    one = streamed(stream, END)
    assert one.questions[1]["messages"][1] == {
        "role": "assistant",
        "content": None,
        "reasoning_details": [{"text": "h"}, {"text": "m"}],
        "reasoning": "hm",
        "audio": {"id": "1", "data": "AB"},
        "level": 2,
        "tool_calls": [{**call("a"), "extra_content": {"google": {"s": "x"}}}],
    }


def test_pieces_of_a_content_that_is_a_list() -> None:
    assert merged(["a", None, [{"type": "thinking"}], "", "b", 5]) == [
        {"type": "text", "text": "a"},
        {"type": "thinking"},
        {"type": "text", "text": "b"},
    ]
    assert merged([]) is None
    assert merged([None, {"a": 1}]) == {"a": 1}


def test_events_over_several_lines_stay_whole() -> None:
    spread = delta(content="x", tool_calls=[{"index": 0, **call("a")}]).replace(b", ", b",\ndata: ")
    one = streamed(spread + delta(finish="tool_calls") + DONE, END)
    first = next(Decoder().feed(one.client))
    assert json.loads(first.data)["choices"][0]["delta"] == {"content": "x"}


@pytest.mark.parametrize("depth", range(850, 1030, 10))
def test_answers_that_are_nested_too_deeply_raise_nothing(depth: int) -> None:
    deep = b'"deep":' + b"[" * depth + b"]" * depth
    for answer in (said("mixed, theirs first")[0].stream(), said("mixed, theirs first")[0].body()):
        streams = answer.startswith(b":")
        machine = composer(stream=streams)
        shown = machine.feed(answer.replace(b'"created": 1', deep))
        calls = machine.turn().calls
        shown += machine.finish()
        assert b"Read" in shown
        assert not calls or not streams or b"weather" not in shown


ODD: list[Json] = [
    {"choices": 5},
    {"choices": [7]},
    {"choices": [{"delta": [1], "finish_reason": 4}]},
    {"choices": [{"delta": {"tool_calls": 1, "content": 5, "role": 7}}]},
    {"choices": [{"delta": {"tool_calls": [1, None, {"index": "x", "id": 4, "function": [1]}]}}]},
    {"id": 5, "usage": [1], "choices": []},
]


@pytest.mark.parametrize("event", ODD, ids=lambda event: json.dumps(event)[:50])
def test_nonsense_goes_on_and_raises_nothing(event: Json) -> None:
    odd = encode("", json.dumps(event).encode()) + b"data: [1]\n\ndata: not json\n\n"
    first, second = said("one call")[0].stream(), END
    one = streamed(odd + first, odd + second)
    assert odd in one.client or event == ODD[4]
    assert streamed(odd + second).client == odd + second


@settings(max_examples=200, deadline=None)
@given(
    fields=st.dictionaries(st.sampled_from(["id", "choices", "usage", "error"]), json_values),
    inner=st.dictionaries(st.sampled_from(["content", "tool_calls", "role", "function_call"]), json_values),
    piece=st.dictionaries(st.sampled_from(["index", "id", "type", "function", "custom", "name"]), json_values),
    stream=st.booleans(),
)
def test_no_answer_of_any_shape_raises(fields: Json, inner: Json, piece: Json, stream: bool) -> None:
    part = "delta" if stream else "message"
    shapes = [fields, *({**fields, "choices": [{part: each}]} for each in (inner, {"tool_calls": [piece]}))]
    answers = [json.dumps(shape).encode() for shape in shapes]
    if stream:
        answers = [b"".join(encode("", answer) for answer in answers) + said("one call")[0].stream()] * 2
    for answer in answers:
        again = [said("one call")[0].stream() if stream else said("one call")[0].body(), answer]
        play(CHAT_COMPLETIONS, request(), again, stream=stream)


BODIES = [b"", b"[]", b"{", b'{"error":{}}', b'{"choices":7}', b'{"choices":[{"message":[]}]}', b'{"choices":[1]}']


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_no_message_is_left_alone(body: bytes) -> None:
    assert play(CHAT_COMPLETIONS, request(), [body], stream=False).client == body
    assert play(CHAT_COMPLETIONS, request(), [said("one call")[0].body(), body], stream=False).client == body


def test_a_body_keeps_what_is_not_edited() -> None:
    first, last = [each.body() for each in said("one call")]
    spelled = last.replace(b'"created": 1', b'"created" : 1.0e0, "big":12345678901234567890')
    spelled = spelled.replace(b'"usage"', b'"usage_was"')
    client = play(CHAT_COMPLETIONS, request(), [first, spelled], stream=False).client
    assert client == spelled.replace(b"chatcmpl-2", b"chatcmpl-1")


# --- what the provider is asked ----------------------------------------------------------------------------------


def check_pairing(messages: list[Json]) -> None:
    """After a message with calls come their results, all of them, in order, and no others."""
    due: list[str] = []
    for each in messages:
        if each["role"] == "tool":
            assert each["tool_call_id"] == due.pop(0)
            continue
        assert not due
        due = [one["id"] for one in each.get("tool_calls", ())]
        assert each["content"] is not None or due or each.get("refusal")
    assert not due


def result(call_id: str, text: str | None = None) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text or f"result of {call_id}"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", DIALOGUES)
def test_every_call_is_answered_in_order(name: str, stream: bool) -> None:
    for question in played(name, stream=stream).questions:
        check_pairing(question["messages"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_is_sent_back_as_the_provider_made_it(stream: bool) -> None:
    rounds = said("text around")
    assert played("text around", stream=stream).questions[2]["messages"] == [
        *QUESTION,
        rounds[0].message,
        result("a"),
        rounds[1].message,
        result("b"),
    ]


def test_a_message_that_came_whole_is_sent_back_byte_for_byte() -> None:
    odd = b'{"role" : "assistant","content":null, "tool_calls":[ {"id":"a","function":{"name":"bact_clock",'
    odd += b'"arguments":"{}"},"n":1.0e0}],"annotations":[]}'
    first = b'{"choices":[{"message":' + odd + b"}]}"
    second = play(CHAT_COMPLETIONS, request(), [first, said("one call")[1].body()], stream=False).bodies[1]
    assert odd in second


def test_our_tools_stand_behind_the_clients_in_a_stable_order() -> None:
    (body,) = {played("one call", stream=True).bodies[0] for _ in range(5)}
    assert json.loads(body)["tools"] == [
        READ,
        PATCH,
        {"type": "function", "function": {"name": "bact_clock", "parameters": TOOLS[0].schema}},
        {
            "type": "function",
            "function": {
                "name": FORECAST,
                "description": "The weather to come.",
                "parameters": TOOLS[1].schema,
            },
        },
    ]


def first_body(body: bytes, tools: Sequence[Tool] = TOOLS) -> bytes:
    return TOOLING.request(CHAT_COMPLETIONS.parse(body), tools, {}, True).body()


def test_what_is_not_edited_keeps_its_spelling() -> None:
    body = b'{ "x" : 1.0e0, "messages":[ {"role":"user","content":"\\u00e9", "n":12345678901234567890} ],'
    body += b'"tools" : null}'
    start = body[: body.index(b"null")]
    assert first_body(body).startswith(start + b'[{"type":"function"')
    assert first_body(body, ()) == body
    later = play(CHAT_COMPLETIONS, body, [each.body() for each in said("one call")], stream=False).bodies[1]
    assert b'"n":12345678901234567890}' in later


@pytest.mark.parametrize("body", [b'{"tools":{}}', b'{"tools":5}', b'{"messages":"x"}', b'{"a":1} x'])
def test_a_body_that_cannot_be_edited_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        TOOLING.request(CHAT_COMPLETIONS.parse(b"{}").__class__(body, {}), TOOLS, {}, True)


ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function"}]}}
RELAXED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        (None, None),
        ("auto", "auto"),
        ("required", "auto"),
        ({"type": "function", "function": {"name": "Read"}}, "auto"),
        ({"type": "custom", "custom": {"name": "patch"}}, "auto"),
        (ALLOWED, RELAXED),
        (RELAXED, RELAXED),
        ({"type": "odd"}, {"type": "odd"}),
    ],
)
def test_a_forced_choice_holds_in_the_first_round_only(choice: Any, later: Any) -> None:
    body = request(tool_choice=choice) if choice else request()
    questions = played("one call", stream=True, body=body).questions
    assert [question.get("tool_choice") for question in questions] == [choice, later]


def test_parallel_calls_are_switched_off_where_they_are_not_wanted() -> None:
    given = request(parallel_tool_calls=True)
    assert played("one call", stream=True, body=given, parallel=False).questions[1]["parallel_tool_calls"] is False
    assert played("one call", stream=True, body=given).questions[1]["parallel_tool_calls"] is True
    assert "parallel_tool_calls" not in played("one call", stream=True).questions[0]


def test_in_the_last_round_the_model_cannot_call_our_tools() -> None:
    with_own = played("text around", stream=True, rounds=2).questions[1]
    assert with_own["tools"] == [READ, PATCH]
    assert "tool_choice" not in with_own
    without = played("text around", stream=True, rounds=2, body=request(tools=())).questions[1]
    assert without["tool_choice"] == "none"
    assert [tool["function"]["name"] for tool in without["tools"]] == [tool.wire_name for tool in TOOLS]


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_calls_for_ever_comes_to_a_proper_end(stream: bool) -> None:
    client = played("text around", stream=stream, rounds=2).client
    (choice,) = (chat_completion(client) if stream else json.loads(client))["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == "I look. And the time. "
    assert not choice["message"].get("tool_calls")


@pytest.mark.parametrize(
    ("given_result", "content"),
    [
        (ToolResult((Text("a"), Text("b"))), "a\nb"),
        (ToolResult((Text("a"),), whole='{"structured":1}'), "a"),
        (ToolResult((Text("no"),), is_error=True), "Error: no"),
        (ToolResult((Text("a"), Image("image/png", "aGk=")), whole='{"content":[]}'), '{"content":[]}'),
        (ToolResult((Text("a"), Image("image/png", "aGk="))), "a\n[image]"),
        (ToolResult((Image("image/png", "aGk="),), is_error=True), "Error: [image]"),
        (ToolResult((), is_error=True, whole='{"isError":true}'), '{"isError":true}'),
        (ToolResult(()), ""),
    ],
)
def test_results_in_the_apis_words(given_result: ToolResult, content: str) -> None:
    one = played("one call", stream=False, results=lambda _: given_result)
    assert one.questions[1]["messages"][2] == {"role": "tool", "tool_call_id": "a", "content": content}


def test_questions_to_a_request() -> None:
    def ask(**fields: Any) -> Any:
        return CHAT_COMPLETIONS.parse(json.dumps(fields).encode())

    assert TOOLING.client_tools(ask(tools=[READ, PATCH, {}, 5], functions=[{"name": "old"}, 7])) == {
        "Read",
        "patch",
        "old",
    }
    assert TOOLING.client_tools(ask(tools="x")) == frozenset()
    assert TOOLING.declined(ask(tool_choice="none")) == "tool_choice_none"
    assert TOOLING.declined(ask(n=2)) == "several_answers"
    assert TOOLING.declined(ask(n=1, tool_choice="auto")) is None
    assert TOOLING.unsupported(ask()) is None
    assert TOOLING.most_tools == 128


# --- hidden turns ------------------------------------------------------------------------------------------------


def answer_of(name: str, **other: Any) -> Json:
    """The client's own copy of the answer, in its history."""
    whole = whole_answer(name)
    more = {field: whole[field] for field in ("reasoning_content", "refusal") if whole[field]}
    return {**message(whole["content"] or None, *whole["calls"], **more), **other}


def results_of(name: str) -> list[Json]:
    return [result(each["id"], f"read {each['id']}") for each in whole_answer(name)["calls"]]


def follow_up(name: str, **other: Any) -> list[Json]:
    return [*QUESTION, answer_of(name, **other), *results_of(name), {"role": "user", "content": "Go on."}]


def remembered(first: Played) -> dict[str, HiddenTurn]:
    """As the loop does."""
    mixed = len(first.past) == len(first.turns) and first.turns[-1].mixed
    return dict.fromkeys(first.composer.keys(), HiddenTurn(tuple(first.past), mixed))


def asked_next(name: str, messages: list[Json], *, stream: bool = True) -> list[Json]:
    first = played(name, stream=stream)
    payload = CHAT_COMPLETIONS.parse(request(messages))
    found = {key: turn for key, turn in remembered(first).items() if key in TOOLING.keys(payload)}
    body = TOOLING.request(payload, TOOLS, found, True).body()
    asked: list[Json] = json.loads(body)["messages"]
    return asked


def what_was_said(name: str) -> list[Json]:
    """The conversation as the provider has made it, with all results."""
    made: list[Json] = [*QUESTION]
    for one in said(name):
        calls = one.message.get("tool_calls", ())
        made.append(one.message)
        made += [result(c["id"], None if is_ours(c) else f"read {c['id']}") for c in calls]
    return [*made, {"role": "user", "content": "Go on."}]


WOVEN = [name for name in SEVERAL if not name.startswith("cut")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", WOVEN)
def test_the_next_request_holds_the_conversation_as_it_was(name: str, stream: bool) -> None:
    asked = asked_next(name, follow_up(name), stream=stream)
    assert asked == what_was_said(name)
    check_pairing(asked)


@pytest.mark.parametrize("name", WOVEN)
def test_the_next_request_begins_as_the_last_rounds_did(name: str) -> None:
    """So that the provider's prompt cache hits."""
    bodies = played(name, stream=False).questions
    last = bodies[-1]["messages"]
    assert asked_next(name, follow_up(name), stream=False)[: len(last)] == last


@pytest.mark.parametrize("name", WOVEN)
def test_a_client_that_leaves_the_reasoning_out(name: str) -> None:
    other = answer_of(name)
    other.pop("reasoning_content", None)
    asked = asked_next(name, [*QUESTION, other, *results_of(name), {"role": "user", "content": "Go on."}])
    assert len(asked) == len(what_was_said(name))
    check_pairing(asked)


def test_a_content_in_parts_is_one_content() -> None:
    def parts(*texts: str) -> list[Json]:
        return [{"type": "text", "text": text, "n": 1} for text in texts]

    for written, left in (
        (parts("I look. And the time. Rain at ten."), parts("Rain at ten.")),
        (parts("I look. ", "And the time. ", "Rain at ten."), parts("Rain at ten.")),
        (parts("I look. And", " the time. Rain", " at ten."), parts("Rain", " at ten.")),
    ):
        asked = asked_next("text around", follow_up("text around", content=written))
        assert asked[:-2] == what_was_said("text around")[:-2]
        assert asked[-2]["content"] == left


def test_parts_that_were_all_said_before_are_left_out() -> None:
    whole = [{"type": "text", "text": "I look."}]
    asked = asked_next("text, then a bare call", follow_up("text, then a bare call", content=whole))
    assert asked == what_was_said("text, then a bare call")


ALTERED: list[tuple[str, Any]] = [
    ("calls of the client's later", "Something else."),
    ("calls of the client's later", None),
    ("calls of the client's later", 5),
    ("calls of the client's later", [{"type": "text", "text": "Fir"}]),
    ("calls of the client's later", [{"type": "image_url"}]),
    ("calls of the client's later", [{"type": "text", "text": "Other"}]),
    ("mixed later", "Something else."),
    ("text around", "Something else."),
]


@pytest.mark.parametrize(("name", "content"), ALTERED)
def test_a_turn_that_does_not_fit_stays_out(name: str, content: Any) -> None:
    messages = follow_up(name, content=content)
    assert asked_next(name, messages) == messages


def test_another_question_is_another_answer() -> None:
    messages = follow_up("text around")
    messages[0] = {"role": "user", "content": "Another?"}
    assert asked_next("text around", messages) == messages


def test_results_of_other_calls_stay_behind() -> None:
    name = "mixed, ours first"
    messages = [*QUESTION, answer_of(name), result("r2", "two"), result("odd", "x"), result("r1", "one")]
    asked = asked_next(name, messages)
    assert [each["tool_call_id"] for each in asked[2:]] == ["a", "r1", "r2", "b", "odd"]


def test_calls_that_the_client_added_or_dropped() -> None:
    name = "mixed, ours first"
    other = answer_of(name, tool_calls=[read("r1"), read("new")])
    asked = asked_next(name, [*QUESTION, other, result("r1", "one"), result("new", "x")])
    assert [each["id"] for each in asked[1]["tool_calls"]] == ["a", "r1", "b", "new"]
    assert [each["tool_call_id"] for each in asked[2:]] == ["a", "r1", "b", "new"]


def test_an_answer_to_results_is_found_by_their_calls() -> None:
    asking = [*QUESTION, message(None, read("r1"), read("r2")), result("r1"), result("r2")]
    answers = [each.stream() for each in said("text around")]
    first = streamed(*answers, body=request([*asking, {"role": "system", "content": "Be brief."}]))
    history = [*asking, answer_of("text around"), {"role": "user", "content": "Go on."}]
    payload = CHAT_COMPLETIONS.parse(request(history))
    assert set(remembered(first)) & set(TOOLING.keys(payload)) == set(remembered(first))
    body = TOOLING.request(payload, TOOLS, remembered(first), True).body()
    assert json.loads(body)["messages"] == [*asking, *what_was_said("text around")[1:]]


def test_keys_are_the_same_for_history_and_answer() -> None:
    start = Trail()
    assert answer_key("p", start, "x", ["", "r1"]) == answer_key("p", start, "x ", ["r1", "r2"])
    assert answer_key("p", start, "x", [""]) == answer_key("p", start, "x ", [])
    assert answer_key("p", start, " ", []) is None
    results_only = CHAT_COMPLETIONS.parse(request([result("a"), {"role": "assistant", "content": "x"}, 5]))
    after = start.followed_by("tool", "", ["a"])
    assert TOOLING.keys(results_only) == (answer_key("chat_completions", after, "x", []),)


def test_an_answer_is_known_by_all_that_was_before() -> None:
    """The same words, or the same ids, in another conversation are another answer."""
    first, other = (
        [*QUESTION, message("Done.", read("call_0"))],
        [
            {"role": "user", "content": "Else?"},
            message("Done.", read("call_0")),
        ],
    )
    again = [*QUESTION, message("Done."), {"role": "user", "content": "And?"}, message("Done.")]
    keys = [
        key for history in (first, other, again) for key in TOOLING.keys(CHAT_COMPLETIONS.parse(request(history)))
    ]
    assert len(set(keys)) == len(keys) == 4


SAID = message("Hm.", call("a"))
HIDDEN = Round(json.dumps(SAID).encode(), (json.dumps(result("a")).encode(),))


@pytest.mark.parametrize("mixed", [True, False])
def test_an_answer_of_which_nothing_else_remains(mixed: bool) -> None:
    """It was all said in the round, to which its client's call, if there was one, does not come back."""
    payload = CHAT_COMPLETIONS.parse(request([*QUESTION, {"role": "assistant", "content": "Hm."}]))
    recalled = dict.fromkeys(TOOLING.keys(payload), HiddenTurn((HIDDEN,), mixed))
    asked = json.loads(TOOLING.request(payload, TOOLS, recalled, True).body())["messages"]
    assert asked == [*QUESTION, SAID, result("a")]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "Else.",
        [{"type": "text", "text": "I "}, {"type": "text", "text": "see"}],
        [{"type": "image_url"}],
        [{"type": "text", "text": "I"}],
    ],
)
def test_a_turn_stays_out_even_if_the_key_were_right(content: Any) -> None:
    done = played("text around", stream=True)
    history = [*QUESTION, {"role": "assistant", "content": content, "tool_calls": [read("r1")]}, result("r1")]
    recalled = dict.fromkeys(TOOLING.keys(CHAT_COMPLETIONS.parse(request(history))), hidden_of(done))
    body = TOOLING.request(CHAT_COMPLETIONS.parse(request(history)), TOOLS, recalled, True).body()
    assert json.loads(body)["messages"] == history


def hidden_of(done: Played) -> HiddenTurn:
    assert done.hidden is not None
    return done.hidden


def spread(answer: Json, part: str) -> Json:
    """The answer as some servers tell it: text and calls in choices of their own."""
    (only,) = answer["choices"]
    said = {k: v for k, v in only[part].items() if k != "tool_calls"}
    calls = {"role": "assistant", "tool_calls": only[part]["tool_calls"]}
    return answer | {"choices": [{**only, part: said}, {**only, "index": 1, part: calls}]}


def test_calls_of_ours_in_another_choice_are_ours() -> None:
    first, *rest = said("text around")
    body = json.dumps(spread(json.loads(first.body()), "message")).encode()
    one = play(CHAT_COMPLETIONS, request(), [body, *(each.body() for each in rest)], stream=False)
    assert len(one.bodies) == len(rest) + 1
    assert not any(word in one.client.decode() for word in OURS)
    assert json.loads(one.client)["choices"][0]["message"]["content"] == whole_answer("text around")["content"]


def test_calls_of_ours_in_another_choice_of_a_stream() -> None:
    whole = {"role": "assistant", "content": "I look.", "tool_calls": [{"index": 0, **call("a", city="x")}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": " "}}]}
    chunks = [
        spread({"id": "c", "choices": [{"index": 0, "delta": delta_, "finish_reason": None}]}, "delta")
        for delta_ in (whole, more)
    ]
    first = b"".join(encode("", json.dumps(each).encode()) for each in chunks) + delta(finish="tool_calls") + DONE
    one = streamed(first, END)
    assert [turn.calls for turn in one.turns] == [
        (ToolCall("a", "bmcp_weather_forecast", '{"city": "x"} '),),
        (),
    ]
    assert not any(word in one.client.decode() for word in (*OURS, "city", "arguments"))
    assert "I look." in one.client.decode()


def test_several_choices_without_calls_of_ours_stay_as_they_are() -> None:
    body = json.dumps(spread(json.loads(said("nothing of ours")[0].body()), "message")).encode()
    assert play(CHAT_COMPLETIONS, request(), [body], stream=False).client == body
