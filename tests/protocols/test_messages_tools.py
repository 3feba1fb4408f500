"""Injected tools in the Messages protocol, pure: what the provider is asked and what the client sees of it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.protocols.tools import Image, Text, Tool, ToolCall, ToolResult
from tests.fake_provider.conversations import (
    block,
    event,
    message_end,
    message_start,
    text_block,
    tool_block,
)
from tests.protocols.messages_dialogue import (
    FOUND,
    QUESTION,
    READ,
    SEARCH,
    Content,
    Said,
    call,
    read,
    say,
    think,
)
from tests.protocols.playing import TOOLS, Cut, Played, play
from tests.protocols.sdk import anthropic_message

TOOLING = MESSAGES.tooling
OURS = ("bmcp_", "bact_")
# What the provider says, round by round.
DIALOGUES: dict[str, list[tuple[list[Content], str]]] = {
    "nothing of ours": [([think("hm"), say("Rain."), read("r1")], "tool_use")],
    "one call": [([call("a")], "tool_use"), ([say("Rain.")], "end_turn")],
    "text around": [
        ([think("hm"), say("I look."), call("a", city="Zürich")], "tool_use"),
        ([say("And the time."), call("b", "bact_clock")], "tool_use"),
        ([think("so"), say("Rain at ten.")], "end_turn"),
    ],
    "parallel": [
        ([say("Both."), call("a", city="A"), call("b", city="B"), call("c", "bact_clock")], "tool_use"),
        ([say("Done.")], "end_turn"),
    ],
    "mixed": [([say("I look."), call("a"), read("r1"), call("b", "bact_clock"), read("r2")], "tool_use")],
    "mixed later": [
        ([think("hm"), say("First."), call("a")], "tool_use"),
        ([think("on"), say("Then."), read("r1"), call("b")], "tool_use"),
    ],
    "hosted tools": [
        ([SEARCH, FOUND, say("Found."), call("a")], "tool_use"),
        ([say("Sun."), {"type": "redacted_thinking", "data": "x"}], "end_turn"),
    ],
    "refusal": [([call("a")], "tool_use"), ([say("I will not.")], "refusal")],
    "cut": [([say("I"), call("a")], "max_tokens")],
    "cut later": [([call("a")], "tool_use"), ([say("No"), call("b")], "max_tokens")],
}


def said(name: str) -> list[Said]:
    return [Said(n, content, reason) for n, (content, reason) in enumerate(DIALOGUES[name], 1)]


def request(messages: Any = QUESTION, *, tools: Any = (READ,), **fields: Any) -> bytes:
    given = {"tools": list(tools)} if tools else {}
    body = {"model": "claude-sonnet-5", "max_tokens": 99, **given, **fields, "messages": messages}
    return json.dumps(body, ensure_ascii=False).encode()


def played(name: str, *, stream: bool, body: bytes | None = None, **options: Any) -> Played:
    answers = [each.stream() if stream else each.body() for each in said(name)]
    return play(MESSAGES, body or request(), answers, stream=stream, **options)


def is_ours(content: Content) -> bool:
    return bool(content["type"] == "tool_use" and content["name"].startswith(OURS))


def whole_message(name: str) -> Content:
    """What the client is to hold in the end."""
    rounds = said(name)
    content = [each for one in rounds for each in one.content if not is_ours(each)]
    usage = {
        "input_tokens": sum(one.usage["input_tokens"] for one in rounds),
        "cache_read_input_tokens": 5 * len(rounds),
        "output_tokens": sum(one.number for one in rounds),
        "server_tool_use": {"web_search_requests": len(rounds)},
    }
    return {"id": "msg_1", "content": content, "stop_reason": rounds[-1].stop_reason, "usage": usage}


def held(message: Content) -> Content:
    """Of a message what must be right, without the SDK's own additions."""
    content = [{k: v for k, v in each.items() if v is not None} for each in message["content"]]
    usage = {name: message["usage"][name] for name in whole_message("one call")["usage"]}
    return {"id": message["id"], "content": content, "stop_reason": message["stop_reason"], "usage": usage}


@pytest.mark.parametrize("name", DIALOGUES)
def test_the_sdk_rebuilds_the_message_that_the_client_should_see(name: str) -> None:
    assert held(anthropic_message(played(name, stream=True).client)) == whole_message(name)


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_blocking_client_gets_the_same_message(name: str) -> None:
    assert held(json.loads(played(name, stream=False).client)) == whole_message(name)


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_of_ours_reaches_the_client(name: str, stream: bool) -> None:
    client = played(name, stream=stream).client.decode()
    for word in (*OURS, "result of", '"a"', '"b"', '"c"'):
        assert word not in client
    assert client.count("event: message_start") == client.count("event: message_stop") == (1 if stream else 0)


@pytest.mark.parametrize("name", ["nothing of ours"])
@pytest.mark.parametrize("stream", [True, False])
def test_with_nothing_to_hide_the_bytes_are_the_providers(name: str, stream: bool) -> None:
    (one,) = said(name)
    assert played(name, stream=stream).client == (one.stream() if stream else one.body())


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_pieces_of_any_size_give_the_same(name: str, size: int) -> None:
    def pieces(answer: bytes) -> list[bytes]:
        return [answer[start : start + size] for start in range(0, len(answer), size)]

    assert played(name, stream=True, cut=pieces).client == played(name, stream=True).client


def test_splits_everywhere_give_the_same() -> None:
    """Every byte is the splitter's matter (test_sse.py)."""
    whole = played("text around", stream=True)
    longest = max(len(each.stream()) for each in said("text around"))
    for at in range(0, longest, 5):
        halves: Cut = lambda answer, at=at: [answer[:at], answer[at:]]  # type: ignore[misc]  # noqa: E731
        assert played("text around", stream=True, cut=halves).client == whole.client


def test_text_comes_before_its_round_ends() -> None:
    """Also in a round that ends in a call of ours."""
    composer = MESSAGES.tooling.request(MESSAGES.parse(request()), TOOLS, {}, True).compose(event_stream=True)
    stream = said("text around")[0].stream()
    end = stream.index(b"\n\n", stream.index(b"I l")) + 2
    assert b"I l" in composer.feed(stream[:end])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", DIALOGUES)
def test_the_provider_is_asked_what_its_api_demands(name: str, stream: bool) -> None:
    for question in played(name, stream=stream).questions:
        check_pairing(question["messages"])


def check_pairing(messages: list[Content]) -> None:
    """Roles take turns; every call is answered at the beginning of the next message, once, and nothing else is."""
    for before, message in zip([None, *messages], messages, strict=False):
        assert before is None or before["role"] != message["role"]
        calls = [b["id"] for b in blocks_of(before) if b["type"] == "tool_use"]
        content = blocks_of(message)
        results = [b["tool_use_id"] for b in content if b["type"] == "tool_result"]
        if message["role"] == "user":
            assert results == calls
            assert [b["type"] for b in content[: len(results)]] == ["tool_result"] * len(results)
        assert all(b["type"] != "text" or b["text"] for b in content)


def blocks_of(message: Content | None) -> list[Content]:
    return message["content"] if message is not None and isinstance(message["content"], list) else []


@pytest.mark.parametrize("stream", [True, False])
def test_a_round_is_sent_back_as_the_provider_made_it(stream: bool) -> None:
    rounds = said("text around")
    question = played("text around", stream=stream).questions[2]
    assert question["messages"] == [
        *QUESTION,
        {"role": "assistant", "content": rounds[0].content},
        {"role": "user", "content": [result("a")]},
        {"role": "assistant", "content": rounds[1].content},
        {"role": "user", "content": [result("b")]},
    ]


def result(call_id: str) -> Content:
    return {"type": "tool_result", "tool_use_id": call_id, "content": [say(f"result of {call_id}")]}


def test_our_tools_stand_before_the_clients_in_a_stable_order() -> None:
    bodies = {played("one call", stream=True).bodies[0] for _ in range(5)}
    (body,) = bodies
    tools = json.loads(body)["tools"]
    assert [tool["name"] for tool in tools] == ["bact_clock", "bmcp_weather_forecast", "Read"]
    assert tools[0] == {"name": "bact_clock", "input_schema": {"type": "object", "properties": {}}}
    assert tools[1] == {
        "name": "bmcp_weather_forecast",
        "description": "The weather to come.",
        "input_schema": TOOLS[1].schema,
    }


def test_what_is_not_edited_keeps_its_spelling() -> None:
    body = b'{ "x" : 1.0e0, "messages":[ {"role":"user","content":"\\u00e9", "n":12345678901234567890} ]}'
    asked = play(MESSAGES, body, [said("one call")[0].body()], stream=False).bodies[0]
    assert asked.startswith(
        b'{ "x" : 1.0e0, "messages":[ {"role":"user","content":"\\u00e9", "n":12345678901234567890} ],'
    )
    later = play(MESSAGES, body, [each.body() for each in said("one call")], stream=False).bodies[1]
    assert b'"n":12345678901234567890}' in later


@pytest.mark.parametrize(
    ("choice", "first", "later"),
    [
        (None, None, None),
        ({"type": "auto"}, {"type": "auto"}, {"type": "auto"}),
        ({"type": "any", "x": 1}, {"type": "any", "x": 1}, {"type": "auto", "x": 1}),
        ({"type": "tool", "name": "Read"}, {"type": "tool", "name": "Read"}, {"type": "auto"}),
        ("odd", "odd", "odd"),
    ],
)
def test_a_forced_choice_holds_in_the_first_round_only(choice: Any, first: Any, later: Any) -> None:
    body = request(tool_choice=choice) if choice else request()
    questions = played("one call", stream=True, body=body).questions
    assert [question.get("tool_choice") for question in questions] == [first, later]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "any"}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"type": "none"}, {"type": "none"}),
    ],
)
def test_parallel_calls_are_switched_off_where_they_are_not_wanted(choice: Any, sent: Any) -> None:
    body = request(tool_choice=choice) if choice else request()
    assert played("one call", stream=True, body=body, parallel=False).questions[0]["tool_choice"] == sent


def test_in_the_last_round_the_model_cannot_call_our_tools() -> None:
    with_own = played("text around", stream=True, rounds=2).questions[1]
    assert [tool["name"] for tool in with_own["tools"]] == ["Read"]
    without = played("text around", stream=True, rounds=2, body=request(tools=())).questions[1]
    assert without["tool_choice"] == {"type": "none"}
    assert [tool["name"] for tool in without["tools"]] == [tool.wire_name for tool in TOOLS]


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_calls_for_ever_comes_to_a_proper_end(stream: bool) -> None:
    client = played("text around", stream=stream, rounds=2).client
    message = anthropic_message(client) if stream else json.loads(client)
    assert message["stop_reason"] == "end_turn"
    assert [each["type"] for each in message["content"]] == ["thinking", "text", "text"]


def test_arguments_that_are_no_object_are_not_sent_back() -> None:
    stream = b"".join(
        [message_start("msg_1", {}), *tool_block(0, "a", "bact_clock", '{"cut'), *message_end("tool_use", {})]
    )
    one = play(MESSAGES, request(), [stream, said("one call")[1].stream()], stream=True)
    assert one.turns[0].calls == (ToolCall("a", "bact_clock", '{"cut'),)
    assert one.questions[1]["messages"][1]["content"][0]["input"] == {}


def test_a_round_that_broke_off_is_not_run() -> None:
    whole = said("one call")[0].stream()
    for end in range(len(whole) - 1):
        composer = MESSAGES.tooling.request(MESSAGES.parse(request()), TOOLS, {}, True).compose(event_stream=True)
        composer.feed(whole[:end])
        turn = composer.turn()
        assert turn.cut or not turn.calls
        assert not composer.ended


@pytest.mark.parametrize("body", [b"", b"[]", b'{"type":"error"}', b'{"content":7}', b'{"content":[1,{}]}', b"{"])
def test_a_body_that_is_no_message_is_left_alone(body: bytes) -> None:
    assert play(MESSAGES, request(), [body], stream=False).client == body
    after = play(MESSAGES, request(), [said("one call")[0].body(), body], stream=False)
    assert after.client == body or json.loads(after.client)["id"] == "msg_1"


def test_results_in_the_apis_words() -> None:
    results = ToolResult((Text("hi"), Image("image/png", "aGk=")), is_error=True)
    one = played("one call", stream=False, results=lambda _: results)
    assert one.questions[1]["messages"][2]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            ],
            "is_error": True,
        }
    ]


def test_citations_and_what_nobody_knows_yet_are_put_together() -> None:
    deltas: list[Content] = [
        {"type": "text_delta", "text": "x"},
        {"type": "citations_delta", "citation": {"cited_text": "y"}},
        {"type": "compaction_delta", "content": "z"},
    ]
    stream = b"".join(
        [
            message_start("msg_1", {}),
            *block(0, {"type": "text", "text": "", "new": 1}, *deltas),
            *text_block(1),
            *tool_block(2, "a", "bact_clock"),
            event("content_block_delta", {"index": 9, "delta": {}}),
            b"event: odd\ndata: [1]\n\n",
            *message_end("tool_use", {}),
        ]
    )
    one = play(MESSAGES, request(), [stream, said("one call")[1].stream()], stream=True)
    assert one.questions[1]["messages"][1]["content"] == [
        {"type": "text", "text": "x", "new": 1, "content": "z", "citations": [{"cited_text": "y"}]},
        {"type": "tool_use", "id": "a", "name": "bact_clock", "input": {}},
    ]


# --- hidden turns ------------------------------------------------------------------------------------------------


def answer_of(name: str, *, thinking: bool = True) -> Content:
    """The client's own copy of the answer, in its history."""
    content = whole_message(name)["content"]
    return {"role": "assistant", "content": [c for c in content if thinking or c["type"] != "thinking"]}


def follow_up(name: str, *, thinking: bool = True) -> list[Content]:
    calls = [each for each in answer_of(name)["content"] if each["type"] == "tool_use"]
    results = [{**result(each["id"]), "cache_control": {"type": "ephemeral"}} for each in calls]
    next_message = {"role": "user", "content": [*results, say("Go on.")] if calls else "Thanks."}
    return [*QUESTION, answer_of(name, thinking=thinking), next_message]


def asked_next(name: str, messages: list[Content], *, stream: bool = True) -> list[Content]:
    first = played(name, stream=stream)
    payload = MESSAGES.parse(request(messages))
    found = {key: first.remembered()[key] for key in TOOLING.keys(payload) if key in first.remembered()}
    bodies = play(
        MESSAGES, request(messages), [said("one call")[1].stream()], stream=True, recalled=found
    ).questions
    asked: list[Content] = bodies[0]["messages"]
    return asked


WITH_HIDDEN = [name for name in DIALOGUES if name not in ("nothing of ours", "cut", "refusal")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", [*WITH_HIDDEN, "refusal"])
def test_the_next_request_holds_exactly_the_conversation_that_the_provider_produced(
    name: str, stream: bool
) -> None:
    asked = asked_next(name, follow_up(name), stream=stream)
    check_pairing(asked)
    assistants = [message["content"] for message in asked if message["role"] == "assistant"]
    produced = [each.content for each in said(name)]
    if name == "cut later":
        produced[1] = [say("No")]  # the call that was cut was not run, and is forgotten
    assert assistants == produced


def test_the_clients_own_marks_stay_in_the_next_request() -> None:
    asked = asked_next("mixed", follow_up("mixed"))
    assert [block.get("cache_control") is not None for block in asked[2]["content"]] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert [block.get("tool_use_id") for block in asked[2]["content"]] == ["a", "r1", "b", "r2", None]


def test_a_client_that_leaves_thinking_out() -> None:
    asked = asked_next("mixed later", follow_up("mixed later", thinking=False))
    check_pairing(asked)
    assert [[block["type"] for block in message["content"]] for message in asked[1::2]] == [
        ["thinking", "text", "tool_use"],
        ["thinking", "text", "tool_use", "tool_use"],
    ]


def test_a_text_as_content_is_one_block() -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "Rain."}, {"role": "user", "content": "Thanks."}]
    asked = asked_next("one call", messages)
    assert [message["role"] for message in asked] == ["user", "assistant", "user", "assistant", "user"]
    check_pairing(asked)


def test_a_turn_that_the_client_has_changed_stays_out() -> None:
    messages = follow_up("mixed later")
    del messages[1]["content"][1]
    assert asked_next("mixed later", messages) == messages


def test_another_question_is_another_conversation() -> None:
    messages = [{"role": "user", "content": "And tomorrow?"}, *follow_up("one call")[1:]]
    assert asked_next("one call", messages) == messages


def test_results_that_come_as_a_text_find_their_place() -> None:
    """A client that was interrupted answers nothing."""
    messages = [*follow_up("mixed")[:2], {"role": "user", "content": "stop"}]
    assert asked_next("mixed", messages)[2]["content"] == [result("a"), result("b"), say("stop")]


def test_an_empty_answer_has_no_key() -> None:
    hidden = play(
        MESSAGES, request(), [said("one call")[0].stream(), said("one call")[0].stream()], stream=True, rounds=2
    )
    assert hidden.composer.keys() == ()
    assert hidden.composer.empty


def test_an_answer_to_results_is_known_by_their_calls() -> None:
    messages = [
        *QUESTION,
        {"role": "assistant", "content": [read("r9")]},
        {"role": "user", "content": [result("r9")]},
    ]
    one = played("one call", stream=True, body=request(messages))
    later = [*messages, answer_of("one call"), {"role": "user", "content": "Thanks."}]
    assert set(one.composer.keys()) <= set(TOOLING.keys(MESSAGES.parse(request(later))))


def test_what_cannot_be_edited_is_refused() -> None:
    for body in (b'{"messages":7}', b'{"tools":"x"}', b"\x00"):
        with pytest.raises(ValueError, match=r".*"):
            TOOLING.request(MESSAGES.parse(b"{}").__class__(body, {}), TOOLS, {}, True)


def test_which_requests_decline_tools() -> None:
    def reason(**fields: Any) -> str | None:
        return TOOLING.declined(MESSAGES.parse(request(**fields)))

    assert reason() is None
    assert reason(tool_choice={"type": "none"}) == "tool_choice_none"
    assert reason(thread={"previous_message_id": "msg_0"}) == "continued"
    assert TOOLING.unsupported(MESSAGES.parse(request())) is None
    assert TOOLING.client_tools(MESSAGES.parse(request(tools=(READ, {"type": "x"}, 3)))) == {"Read", ""}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chunking_of_any_dialogue(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(DIALOGUES)))

    def cut(answer: bytes) -> list[bytes]:
        at = sorted(data.draw(st.sets(st.integers(0, len(answer)), max_size=9)))
        return [answer[a:b] for a, b in zip([0, *at], [*at, len(answer)], strict=True)]

    assert held(anthropic_message(played(name, stream=True, cut=cut).client)) == whole_message(name)


def test_indexes_that_are_not_dense_stay_while_nothing_is_hidden() -> None:
    """Servers that only resemble the API number as they like; after a hidden block the numbers are ours."""
    begin, end = message_start("msg_1", {"input_tokens": 1}), message_end("tool_use", {"output_tokens": 1})
    odd = [*text_block(1, "a"), *text_block(5, "b")]
    ours = tool_block(6, "toolu_1", "bact_clock", "{}")
    answer = b"".join((begin, *odd, *message_end("end_turn", {"output_tokens": 1})))
    assert play(MESSAGES, request(), [answer], stream=True).client == answer
    mixed = b"".join((begin, *odd, *ours, *text_block(7, "c"), *end))
    shown = play(MESSAGES, request(), [mixed], stream=True).client
    assert shown.startswith(b"".join((begin, *odd)))
    assert b'"index":6' in shown
    assert b'"index":7' not in shown


def test_a_hidden_turn_without_what_it_needs_does_no_harm() -> None:
    broken = HiddenTurn((Round(b"[]", ()),), mixed=True)
    keys = TOOLING.keys(MESSAGES.parse(request(follow_up("mixed"))))
    asked = play(
        MESSAGES, request(follow_up("mixed")), [b"{}"], stream=False, recalled=dict.fromkeys(keys, broken)
    ).questions[0]
    assert asked["messages"] == follow_up("mixed")


def test_a_tool_without_a_description() -> None:
    tool = Tool("bact_x", "x", "", {"type": "object"}, "action:x")
    assert b'"description"' not in play(MESSAGES, request(tools=()), [b"{}"], stream=False, tools=[tool]).bodies[0]


def test_the_clients_marks_stay_in_whole_rounds_too() -> None:
    messages = json.loads(json.dumps(follow_up("text around")))
    for each in messages[1]["content"]:
        each["cache_control"] = {"type": "ephemeral"}
    sent = json.dumps(asked_next("text around", messages))
    assert sent.count("cache_control") == len(messages[1]["content"])


def test_an_index_that_is_no_number_raises_nothing() -> None:
    odd = block(0, {"type": "text", "text": "odd"}, {"type": "text_delta", "text": "!"})
    written = [each.replace(b'"index":0', b'"index":[1]') for each in odd]
    whole = b"".join([message_start("msg_1", {}), *written, *message_end("end_turn", {})])
    assert play(MESSAGES, request(), [whole], stream=True).client == whole


def test_another_conversation_with_the_same_ids_or_words_stays_as_it_is() -> None:
    for name in ("mixed", "one call"):
        other = [{"role": "user", "content": "Else?"}, *follow_up(name)[1:]]
        assert asked_next(name, other) == other


def test_events_that_cannot_be_edited_go_on_as_they_came() -> None:
    """Nested more deeply than an edit can follow; and half an event is none."""
    deep = b"[" * 1010 + b"]" * 1010
    odd = (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":7,"content_block":{"x":%b}}\n\n'
        % deep
    )
    first = said("one call")[0].stream() + b"data: half"
    second = odd + said("one call")[1].stream() + b": bye"
    client = play(MESSAGES, request(), [first, second], stream=True).client
    assert odd in client
    assert client.count(b"event: message_start") == 1
    assert b"half" not in client
    assert client.endswith(b": bye")


def test_an_event_over_several_lines_stays_one() -> None:
    first, second = (each.stream().replace(b',"index"', b',\ndata: "index"') for each in said("text around")[:2])
    third = said("text around")[2].stream()
    assert held(anthropic_message(play(MESSAGES, request(), [first, second, third], stream=True).client)) == (
        whole_message("text around")
    )


def test_usage_of_any_size_is_summed() -> None:
    from aibridge.protocols.rounds import summed

    usages = [
        {"a": 2**63, "b": {"c": 1}, "d": None, "e": "x"},
        {"a": 1, "b": {"c": 2}, "d": 3, "e": "y", "f": None},
    ]
    assert summed(usages) == {"a": 2**63 + 1, "b": {"c": 3}, "d": 3, "e": "y", "f": None}
    assert summed([{"f": 1}, {"f": None}]) == {"f": 1}


@pytest.mark.parametrize(("name", "missing"), [("mixed later", 1), ("mixed", 0), ("mixed", 1)])
def test_a_turn_that_does_not_fit_stays_out(name: str, missing: int) -> None:
    """Even if the key were right."""
    messages = json.loads(json.dumps(follow_up(name)))
    del messages[1]["content"][missing]
    hidden = played(name, stream=True).hidden
    assert hidden is not None
    recalled = dict.fromkeys(TOOLING.keys(MESSAGES.parse(request(messages))), hidden)
    body = play(MESSAGES, request(messages), [b"{}"], stream=False, recalled=recalled).questions[0]
    assert body["messages"] == messages


def test_instructions_in_the_history_change_no_key() -> None:
    plain = follow_up("mixed")
    with_notes = [plain[0], {"role": "system", "content": "Agents: none"}, *plain[1:]]
    assert TOOLING.keys(MESSAGES.parse(request(with_notes))) == TOOLING.keys(MESSAGES.parse(request(plain)))


def test_a_history_comes_back_also_where_no_tools_are_offered() -> None:
    """Unless there are no tools at all, which the API wants where there are calls."""
    hidden = played("mixed", stream=True).hidden
    assert hidden is not None
    payload = MESSAGES.parse(request(follow_up("mixed")))
    recalled = dict.fromkeys(TOOLING.keys(payload), hidden)
    asked = json.loads(TOOLING.request(payload, (), recalled, True).body())
    assert [tool["name"] for tool in asked["tools"]] == ["Read"]
    check_pairing(asked["messages"])
    assert "bmcp_weather_forecast" in json.dumps(asked["messages"])
    bare = MESSAGES.parse(request(follow_up("mixed"), tools=()))
    assert TOOLING.request(bare, (), recalled, True).body() == bare.body
