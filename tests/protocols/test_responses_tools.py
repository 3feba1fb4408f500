"""Injected tools in the Responses protocol, pure: what the provider is asked and what the client sees of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibridge.protocols.interceptor import Payload
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.responses.weaving import call_key
from aibridge.protocols.rounds import HiddenTurn, Round
from aibridge.protocols.sse import encode
from aibridge.protocols.tools import Image, Text, Tool, ToolCall, ToolResult
from tests.protocols.playing import TOOLS, Cut, Played, play
from tests.protocols.sdk import response

TOOLING = RESPONSES.tooling
OURS = (b"bmcp_", b"bact_")

Item = dict[str, Any]

READ: Item = {"type": "function", "name": "Read", "parameters": {"type": "object"}, "strict": True}
QUESTION: list[Item] = [{"role": "user", "content": "What is the weather?"}]


def ours_defined(tool: Tool) -> Item:
    described = {"description": tool.description} if tool.description else {}
    return {
        "type": "function",
        "name": tool.wire_name,
        **described,
        "parameters": tool.schema,
        "strict": False,
    }


def say(text: str, number: str = "1") -> Item:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": f"msg_{number}",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def refuse(text: str) -> Item:
    return say("", "refused") | {"content": [{"type": "refusal", "refusal": text}]}


def think(number: str, encrypted: str | None = None) -> Item:
    summary = [{"type": "summary_text", "text": f"thought {number}"}]
    return {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": encrypted}


def call(call_id: str, name: str = "bmcp_weather_forecast", arguments: str = '{"city": "Zürich"}') -> Item:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def read(call_id: str) -> Item:
    return call(call_id, "Read", '{"path":"/etc/hosts"}')


def result(call_id: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": f"result of {call_id}"}


def own(call_id: str) -> Item:
    """The client's answer to a call of its own."""
    return {"type": "function_call_output", "id": f"fco_{call_id}", "call_id": call_id, "output": "127.0.0.1"}


SEARCH: Item = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "Zürich"},
}
PATCH: Item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "x", "name": "p", "input": "i"}
SHELL: Item = {
    "type": "shell_call",
    "id": "sh_1",
    "call_id": "hosted",
    "status": "completed",
    "action": {"commands": ["ls"]},
}
SHELL_OUTPUT: Item = {
    "type": "shell_call_output",
    "id": "sho_1",
    "call_id": "hosted",
    "status": "completed",
    "output": [],
    "max_output_length": None,
}
APPROVAL: Item = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "arguments": "{}",
    "name": "delete",
    "server_label": "s",
}


@dataclass(frozen=True)
class Said:
    """One round of the provider's: the same output as a stream and as a body."""

    number: int
    output: Sequence[Item]
    status: str = "completed"
    listed: bool = True  # the terminal event has the output
    echo: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"resp_{self.number}"

    @property
    def usage(self) -> Item:
        n = self.number
        return {
            "input_tokens": 10 * n,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens": n,
            "output_tokens_details": {"reasoning_tokens": n},
            "total_tokens": 11 * n,
        }

    def response(self, status: str, output: Sequence[Item]) -> Item:
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1700000000 + self.number,
            "status": status,
            "error": {"code": "server_error", "message": "boom"} if status == "failed" else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": "gpt-5",
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "tool_choice": "auto",
            "tools": [READ, *map(ours_defined, TOOLS)],
            "usage": self.usage if status != "in_progress" else None,
            "unknown": 1.50,
        } | self.echo

    def body(self) -> bytes:
        return json.dumps(self.response(self.status, self.output), ensure_ascii=False).encode()

    def stream(self) -> bytes:
        numbers = count()

        def event(kind: str, **fields: Any) -> bytes:
            data = {"type": kind, "sequence_number": next(numbers), **fields}
            return encode(kind, json.dumps(data, ensure_ascii=False).encode())

        parts = [event(f"response.{kind}", response=self.response("in_progress", ())) for kind in BEGINNING]
        for index, item in enumerate(self.output):
            parts += [event(kind, output_index=index, **fields) for kind, fields in _events(item)]
        final = self.response(self.status, self.output if self.listed else ())
        return b"".join([*parts, event(f"response.{self.status}", response=final)])


BEGINNING = ("created", "in_progress")


def _events(item: Item) -> list[tuple[str, Item]]:
    at = {"item_id": item["id"]}
    begun = item | {"status": "in_progress"}
    middle: list[tuple[str, Item]] = []
    match item["type"]:
        case "message" if "text" in item["content"][0]:
            begun["content"] = []
            part, here = item["content"][0], at | {"content_index": 0}
            middle = [
                ("response.content_part.added", here | {"part": part | {"text": ""}}),
                ("response.output_text.delta", here | {"delta": part["text"][:3], "logprobs": []}),
                ("response.output_text.delta", here | {"delta": part["text"][3:], "logprobs": []}),
                ("response.output_text.done", here | {"text": part["text"], "logprobs": []}),
                ("response.content_part.done", here | {"part": part}),
            ]
        case "function_call":
            begun["arguments"] = ""
            arguments = item["arguments"]
            middle = [
                ("response.function_call_arguments.delta", at | {"delta": arguments[:3]}),
                ("response.function_call_arguments.delta", at | {"delta": arguments[3:]}),
                (
                    "response.function_call_arguments.done",
                    at | {"arguments": arguments, "name": item["name"]},
                ),
            ]
        case "web_search_call":
            middle = [("response.web_search_call.searching", at), ("response.some.future.event", at)]
    item_events = [("response.output_item.added", {"item": begun}), *middle]
    return [*item_events, ("response.output_item.done", {"item": item})]


# What the provider says, round by round.
DIALOGUES: dict[str, list[tuple[list[Item], str]]] = {
    "nothing of ours": [([think("1"), say("Rain."), read("r1")], "completed")],
    "one call": [([call("a")], "completed"), ([say("Rain.")], "completed")],
    "text around": [
        ([think("1", "enc"), say("I look."), call("a"), say("Wait.", "1b")], "completed"),
        ([say("And the time.", "2"), call("b", "bact_clock", "")], "completed"),
        ([think("3"), say("Rain at ten.", "3")], "completed"),
    ],
    "parallel": [
        ([say("Both."), call("a"), call("b"), think("1b"), call("c", "bact_clock", "{}")], "completed"),
        ([say("Done.", "2")], "completed"),
    ],
    "mixed": [([say("I look."), call("a"), read("r1"), call("b", "bact_clock"), read("r2")], "completed")],
    "mixed, theirs first": [([read("r1"), call("a")], "completed")],
    "mixed later": [
        ([think("1"), say("First."), call("a")], "completed"),
        ([think("2"), say("Then.", "2"), read("r1"), call("b")], "completed"),
    ],
    "mixed kinds": [
        ([call("a"), PATCH], "completed")
    ],
    "hosted tools": [
        ([SEARCH, SHELL, SHELL_OUTPUT, say("Found."), call("a")], "completed"),
        ([SEARCH | {"id": "ws_2"}, say("Sun.", "2")], "completed"),
    ],
    "approval": [([call("a"), APPROVAL], "completed")],
    "refusal": [([call("a")], "completed"), ([refuse("I will not.")], "completed")],
    "cut": [([say("I"), call("a", arguments='{"ci')], "incomplete")],
    "cut later": [([call("a")], "completed"), ([say("No"), call("b", arguments="")], "incomplete")],
    "failed": [([call("a")], "completed"), ([say("No"), call("b")], "failed")],
}  # fmt: skip


def said(name: str, **fields: Any) -> list[Said]:
    return [Said(n, output, status, **fields) for n, (output, status) in enumerate(DIALOGUES[name], 1)]


def request(given: Any = QUESTION, *, tools: Any = (READ,), **fields: Any) -> bytes:
    return json.dumps({"model": "gpt-5", "input": given, "tools": tools, **fields}, ensure_ascii=False).encode()


def payload(**fields: Any) -> Payload:
    return RESPONSES.parse(json.dumps(fields).encode())


def played(script: Sequence[Said], body: bytes | None = None, *, stream: bool = True, **options: Any) -> Played:
    answers = [each.stream() if stream else each.body() for each in script]
    return play(RESPONSES, body or request(), answers, stream=stream, **options)


def is_ours(item: Item) -> bool:
    return str(item.get("name", "")).startswith(("bmcp_", "bact_"))


def expected_response(rounds: Sequence[Said]) -> Item:
    """What the client should see of the rounds."""
    last = rounds[-1]
    output = [item for each in rounds for item in each.output if not is_ours(item)]
    n = sum(each.number for each in rounds)
    usage = {
        "input_tokens": 10 * n,
        "input_tokens_details": {"cached_tokens": 5 * len(rounds)},
        "output_tokens": n,
        "output_tokens_details": {"reasoning_tokens": n},
        "total_tokens": 11 * n,
    }
    return last.response(last.status, output) | {"id": "resp_1", "tools": [READ], "usage": usage}


def events(stream: bytes) -> list[Item]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]


def accumulated(stream: bytes) -> Item:
    """What the SDK's own accumulator, which checks indexes and identities, makes of a completed answer."""
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))
    client = openai.OpenAI(api_key="k", base_url="http://provider.test", http_client=http)
    with client.responses.stream(model="gpt-5", input="hi") as stream_events:
        final: Any = stream_events.get_final_response()
    made: Item = final.to_dict(mode="json")
    return made


EVERY_DIALOGUE = pytest.mark.parametrize("name", DIALOGUES)
BOTH_FORMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])


# The request


def test_our_tools_go_after_the_clients_in_the_same_bytes_every_time() -> None:
    body = b'{ "model":"m", "n": 1.50, "input":"hi", "tools": [ {"type":"function","name":"Read"} ] }'
    made = TOOLING.request(RESPONSES.parse(body), TOOLS, {}, True).body()
    ours = [json.dumps(ours_defined(tool), separators=(",", ":")).encode() for tool in TOOLS]
    inserted = b'[{"type":"function","name":"Read"},' + b",".join(ours) + b"]"
    assert made == body.replace(b'[ {"type":"function","name":"Read"} ]', inserted)
    assert made == TOOLING.request(RESPONSES.parse(body), TOOLS, {}, True).body()


@pytest.mark.parametrize("body", [b'{"tools": null}', b"{}", b'{"tools":[]}'])
def test_without_tools_of_the_client_ours_are_all(body: bytes) -> None:
    made = json.loads(TOOLING.request(RESPONSES.parse(body), TOOLS, {}, True).body())
    assert made == {"tools": list(map(ours_defined, TOOLS))}


@pytest.mark.parametrize("body", [b'{"tools": {}}', b'{"tools":"x"}', b'{"input": 1}', b'{"input": {}}'])
def test_a_body_that_cannot_be_edited_raises(body: bytes) -> None:
    with pytest.raises(ValueError, match="missing"):
        TOOLING.request(RESPONSES.parse(body), TOOLS, {}, True)


def test_the_rules_for_requests() -> None:
    namespace = {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}, 1]}
    tools = [READ, namespace, {"type": "web_search"}, 7]
    assert TOOLING.client_tools(payload(tools=tools)) == {"Read", "crm", "find", ""}
    assert TOOLING.client_tools(payload(tools="x")) == frozenset()
    assert TOOLING.declined(payload(tool_choice="none")) == "tool_choice_none"
    assert TOOLING.declined(payload(tool_choice={"type": "function"})) is None
    assert TOOLING.declined(payload(previous_response_id="resp_1")) is None
    assert TOOLING.unsupported(payload(background=True)) is not None
    assert TOOLING.unsupported(payload(background=False)) is None
    assert TOOLING.most_tools == 128


ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "Read"}]}

CHOICES: list[tuple[Any, Any]] = [
    ("auto", "auto"),
    ("required", "auto"),
    (None, None),
    (5, 5),
    ({"type": "function", "name": "Read"}, "auto"),
    ({"type": "mcp", "server_label": "s"}, "auto"),
    ({"type": "file_search"}, "auto"),
    (ALLOWED, ALLOWED | {"mode": "auto"}),
    (ALLOWED | {"mode": "auto"}, ALLOWED | {"mode": "auto"}),
    ({"type": "allowed_tools"}, {"type": "allowed_tools"}),
]


@pytest.mark.parametrize(("choice", "later"), CHOICES)
def test_a_forced_choice_holds_in_the_first_round_only(choice: Any, later: Any) -> None:
    made = TOOLING.request(RESPONSES.parse(request(tool_choice=choice)), TOOLS, {}, True)
    past = [Round(json.dumps([call("a")]).encode(), (json.dumps(result("a")).encode(),))]
    assert json.loads(made.body())["tool_choice"] == choice
    assert json.loads(made.body(past))["tool_choice"] == later
    last = json.loads(made.body(past, last=True))
    assert (last["tool_choice"], last["tools"]) == (later, [READ])


def test_in_the_last_round_only_a_choice_keeps_the_model_from_our_tools_if_there_are_no_others() -> None:
    made = TOOLING.request(RESPONSES.parse(request(tools=[], tool_choice="required")), TOOLS, {}, True)
    last = json.loads(made.body(last=True))
    assert last["tool_choice"] == "none"
    assert last["tools"] == list(map(ours_defined, TOOLS))


def test_parallel_calls_are_switched_off_where_that_is_set() -> None:
    for given_value in (None, True, False):
        body = request(parallel_tool_calls=given_value)
        made = json.loads(TOOLING.request(RESPONSES.parse(body), TOOLS, {}, False).body())
        assert made["parallel_tool_calls"] is False
        kept = json.loads(TOOLING.request(RESPONSES.parse(body), TOOLS, {}, True).body())
        assert kept["parallel_tool_calls"] is given_value


# The next round


INPUTS: list[tuple[Any, list[Item]]] = [
    ("hi", [{"role": "user", "content": "hi"}]),
    (None, []),
    (QUESTION, QUESTION),
]


@pytest.mark.parametrize(("given_input", "first"), INPUTS)
@BOTH_FORMS
def test_the_next_round_repeats_the_input_with_all_that_was_said(
    given_input: Any, first: list[Item], stream: bool
) -> None:
    rounds = said("text around")
    body = request(given_input, previous_response_id="resp_0")
    bodies = played(rounds, body, stream=stream).questions
    assert bodies[0]["input"] == given_input
    fixed = [
        item | {"arguments": item.get("arguments") or "{}"} if is_ours(item) else item for item in rounds[1].output
    ]
    second = [*first, *rounds[0].output, result("a")]
    assert bodies[1]["input"] == second
    assert bodies[2]["input"] == [*second, *fixed, result("b")]
    assert {body["previous_response_id"] for body in bodies} == {"resp_0"}


@BOTH_FORMS
@EVERY_DIALOGUE
def test_every_call_in_a_next_body_is_answered_in_the_order_of_the_calls(name: str, stream: bool) -> None:
    for question in played(said(name), stream=stream).questions[1:]:
        calls = [item["call_id"] for item in question["input"] if item.get("type") == "function_call"]
        answers = [item["call_id"] for item in question["input"] if item.get("type") == "function_call_output"]
        assert calls == answers
        assert question["input"][: len(QUESTION)] == QUESTION


@pytest.mark.parametrize("stored", [True, False, None])
def test_reasoning_that_the_provider_cannot_look_up_is_not_sent_back(stored: bool | None) -> None:
    rounds = [Said(1, [think("1", "enc"), think("2"), call("a")]), Said(2, [say("x")])]
    bodies = played(rounds, request(store=stored)).questions
    left_out = [think("2")] if stored is False else []
    assert bodies[1]["input"][1:-1] == [item for item in rounds[0].output if item not in left_out]


def test_to_a_conversation_only_the_results_are_new() -> None:
    bodies = played(said("text around"), request(conversation={"id": "conv_1"})).questions
    assert [body["input"] for body in bodies] == [QUESTION, [result("a")], [result("b")]]


@BOTH_FORMS
def test_items_go_back_as_they_were_written(stream: bool) -> None:
    output = b'[ {"type":"future_item", "n": 1.50,"big":123456789012345678901234567890} , %b]' % (
        json.dumps(call("a")).encode()
    )
    first = b'{"id": "resp_1", "object":"response","status":"completed", "output": %b}' % output
    if stream:
        first = encode("response.completed", b'{"type":"response.completed","response":%b}' % first)
    answers = [first, Said(2, [say("x")]).stream() if stream else Said(2, [say("x")]).body()]
    bodies = play(RESPONSES, request(), answers, stream=stream).bodies
    assert b'{"type":"future_item", "n": 1.50,"big":123456789012345678901234567890},{"type": "fun' in bodies[1]


ARGUMENTS: list[tuple[Any, str, str]] = [
    ('{"a": 1}', '{"a": 1}', '{"a": 1}'),
    ("", "{}", "{}"),
    ("[1]", "[1]", "{}"),
    ('{"a', '{"a', "{}"),
    (None, "{}", "{}"),
    ({"a": 1}, '{"a":1}', '{"a":1}'),
]


@BOTH_FORMS
@pytest.mark.parametrize(("arguments", "heard", "sent"), ARGUMENTS)
def test_a_call_keeps_its_arguments_but_only_an_object_is_sent_back(
    arguments: Any, heard: str, sent: str, stream: bool
) -> None:
    bad = call("a") | {"arguments": arguments}
    body = Said(1, [bad]).body()
    if stream:
        body = encode("response.completed", b'{"type":"response.completed","response":%b}' % body)
    second = Said(2, [say("x")])
    done = play(RESPONSES, request(), [body, second.stream() if stream else second.body()], stream=stream)
    assert done.turns[0].calls == (ToolCall("a", "bmcp_weather_forecast", heard),)
    assert done.questions[1]["input"][1:] == [call("a") | {"arguments": sent}, result("a")]


RESULTS: list[tuple[ToolResult, str]] = [
    (ToolResult((Text("one"), Text("two"))), "one\ntwo"),
    (ToolResult(()), ""),
    (ToolResult((Text("no"),), is_error=True), "Error: no"),
    (ToolResult((Text("a"), Image("image/png", "eA==")), whole='{"content":[]}'), '{"content":[]}'),
    (ToolResult((Text("a"), Image("image/png", "eA==")), whole='{"content":[]}', is_error=True), '{"content":[]}'),
    (ToolResult((Text("a"), Image("image/png", "eA=="))), "a\n[image]"),
    (ToolResult((Image("image/png", "eA=="),), is_error=True), "Error: [image]"),
    (ToolResult((Text("a"),), whole="{}"), "a"),
]


@pytest.mark.parametrize(("given_result", "output"), RESULTS)
def test_a_result_becomes_a_text(given_result: ToolResult, output: str) -> None:
    done = played(said("one call"), results=lambda _: given_result)
    assert done.questions[1]["input"][-1] == result("a") | {"output": output}


# The answer


@EVERY_DIALOGUE
def test_the_sdk_makes_of_a_stream_what_the_client_should_see(name: str) -> None:
    rounds = said(name)
    done = played(rounds)
    assert response(done.client) == expected_response(rounds)
    assert not any(prefix in done.client for prefix in OURS)
    assert done.composer.ended
    if rounds[-1].status == "completed":
        assert accumulated(done.client)["output"] == accumulated(_plain(rounds))["output"]


def _plain(rounds: Sequence[Said]) -> bytes:
    """The stream of a provider that says at once what the rounds say."""
    output = [item for each in rounds for item in each.output if not is_ours(item)]
    return replace(rounds[0], output=output).stream()


@EVERY_DIALOGUE
def test_a_body_is_what_the_stream_tells(name: str) -> None:
    rounds = said(name)
    done = played(rounds, stream=False)
    assert json.loads(done.client) == expected_response(rounds)
    assert not any(prefix in done.client for prefix in OURS)
    streamed = played(rounds)
    assert (streamed.turns, streamed.past, streamed.bodies) == (done.turns, done.past, done.bodies)
    assert streamed.composer.keys() == done.composer.keys()


@EVERY_DIALOGUE
def test_events_are_numbered_and_placed_without_gaps(name: str) -> None:
    seen = events(played(said(name)).client)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    added = [event["output_index"] for event in seen if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))
    kinds = [event["type"].removeprefix("response.") for event in seen]
    assert kinds[:2] == ["created", "in_progress"]
    assert [kind for kind in kinds if kind in ("created", "in_progress", "completed", "incomplete", "failed")] == [
        *kinds[:2],
        kinds[-1],
    ]
    assert {event["response"]["id"] for event in seen if "response" in event} == {"resp_1"}
    for event in seen:
        item_id = event.get("item_id") or event.get("item", {}).get("id")
        if item_id:
            assert seen[-1]["response"]["output"][event["output_index"]]["id"] == item_id


@EVERY_DIALOGUE
def test_where_the_terminal_events_leave_the_output_out_the_streamed_items_count(name: str) -> None:
    rounds, unlisted = said(name), said(name, listed=False)
    done, without = played(rounds), played(unlisted)
    assert (without.bodies, without.turns, without.past) == (done.bodies, done.turns, done.past)
    output = response(without.client)["output"]
    assert output == ([] if len(rounds) == 1 else expected_response(rounds)["output"])
    assert not any(prefix in without.client for prefix in OURS)


TURNS: list[tuple[str, list[str], bool, bool]] = [
    ("nothing of ours", [], True, False),
    ("parallel", [], False, False),
    ("mixed", ["a", "b"], True, False),
    ("mixed, theirs first", ["a"], True, False),
    ("mixed later", ["b"], True, False),
    ("mixed kinds", ["a"], True, False),
    ("approval", ["a"], True, False),
    ("cut", ["a"], False, True),
    ("cut later", ["b"], False, True),
    ("failed", ["b"], False, True),
]


@BOTH_FORMS
@pytest.mark.parametrize(("name", "calls", "mixed", "cut"), TURNS)
def test_the_last_turn(name: str, calls: list[str], mixed: bool, cut: bool, stream: bool) -> None:
    turn = played(said(name), stream=stream).turns[-1]
    assert ([each.id for each in turn.calls], turn.mixed, turn.cut) == (calls, mixed, cut)


def test_a_hosted_call_that_is_answered_in_the_output_is_nobodys_to_answer() -> None:
    done = played(said("hosted tools"))
    assert [turn.mixed for turn in done.turns] == [False, False]


@BOTH_FORMS
def test_parallel_calls_come_in_order(stream: bool) -> None:
    turn = played(said("parallel"), stream=stream).turns[0]
    assert [(each.id, each.name) for each in turn.calls] == [
        ("a", "bmcp_weather_forecast"),
        ("b", "bmcp_weather_forecast"),
        ("c", "bact_clock"),
    ]


@BOTH_FORMS
def test_what_has_nothing_of_ours_passes_byte_for_byte(stream: bool) -> None:
    rounds = said("nothing of ours", echo={"tools": [READ]})
    done = played(rounds, stream=stream)
    assert done.client == (rounds[0].stream() if stream else rounds[0].body())
    assert done.hidden is None
    stripped = played(said("nothing of ours"), stream=stream)
    assert json.loads(json.dumps(expected_response(rounds))) == (
        response(stripped.client) if stream else json.loads(stripped.client)
    )


@BOTH_FORMS
def test_only_the_echoed_tools_change_where_nothing_else_has_to(stream: bool) -> None:
    tools = b'[ {"type": "mcp"} , ' + json.dumps(ours_defined(TOOLS[0])).encode() + b"]"
    body = b'{ "id":"resp_1", "tools" : %b , "output":[ ], "x": 1.50}' % tools
    if stream:
        body = encode("", b'{"type":"response.completed", "response" : %b }' % body)
    done = play(RESPONSES, request(), [body], stream=stream)
    assert done.client == body.replace(tools, b'[{"type": "mcp"}]')


def test_later_rounds_echo_what_the_first_did() -> None:
    chosen = {"type": "function", "name": "bmcp_weather_forecast"}
    rounds = said("one call")
    rounds = [replace(rounds[0], echo={"tool_choice": {"type": "mcp", "server_label": "s"}}), rounds[1]]
    for stream in (True, False):
        done = played(rounds, request(tool_choice=chosen), stream=stream)
        final = response(done.client) if stream else json.loads(done.client)
        assert final["tool_choice"] == {"type": "mcp", "server_label": "s"}


@BOTH_FORMS
@pytest.mark.parametrize(("choice", "echoed"), [(None, "auto"), ("required", "required")])
def test_an_echo_of_what_we_changed_reads_as_the_client_gave_it(choice: Any, echoed: str, stream: bool) -> None:
    rounds = [Said(1, [say("Rain.")], echo={"tool_choice": "none", "parallel_tool_calls": False})]
    body = request(tools=[], tool_choice=choice)
    done = played(rounds, body, stream=stream, rounds=1, parallel=False)
    assert done.questions[0]["tool_choice"] == "none"
    final = response(done.client) if stream else json.loads(done.client)
    assert (final["tool_choice"], final["parallel_tool_calls"]) == (echoed, True)


@BOTH_FORMS
def test_a_call_of_ours_in_the_last_round_is_not_shown(stream: bool) -> None:
    rounds = [Said(1, [call("a")]), Said(2, [say("Well."), call("b")])]
    done = played(rounds, stream=stream, rounds=2)
    final = response(done.client) if stream else json.loads(done.client)
    assert final == expected_response(rounds)
    assert not done.composer.empty
    assert [each["name"] for each in done.questions[1]["tools"]] == ["Read"]


@BOTH_FORMS
def test_an_answer_of_nothing_but_our_calls_is_empty(stream: bool) -> None:
    done = played([Said(1, [call("a")])], stream=stream, rounds=1)
    assert done.composer.empty
    assert (response(done.client) if stream else json.loads(done.client))["output"] == []


def test_usage_that_one_round_does_not_tell_is_still_a_sum() -> None:
    rounds = said("one call", echo={"usage": None})
    assert response(played(rounds).client)["usage"] is None
    rounds = [said("one call")[0], rounds[1]]
    assert response(played(rounds).client)["usage"] == rounds[0].usage


# Any bytes


WIDE = "text around"


def split_at(place: int) -> Cut:
    return lambda answer: [answer[:place], answer[place:]]


def test_splits_everywhere_give_the_same_bytes() -> None:
    """Every byte is the splitter's matter (test_sse.py)."""
    rounds = said("mixed later")
    whole = played(rounds)
    for place in range(0, max(len(each.stream()) for each in rounds), 17):
        done = played(rounds, cut=split_at(place))
        assert (done.client, done.bodies) == (whole.client, whole.bodies)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_bytes(data: st.DataObject) -> None:
    rounds = said(data.draw(st.sampled_from(list(DIALOGUES))))
    stream = data.draw(st.booleans())

    def cut(answer: bytes) -> list[bytes]:
        places = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=20)))
        return [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]

    whole, done = played(rounds, stream=stream), played(rounds, stream=stream, cut=cut)
    assert (done.client, done.bodies, done.turns) == (whole.client, whole.bodies, whole.turns)


def dressed(change: Callable[[bytes], bytes], name: str = WIDE) -> Played:
    return play(RESPONSES, request(), [change(each.stream()) for each in said(name)], stream=True)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda stream: stream.replace(b"\n", b"\r\n"),
    "CR": lambda stream: stream.replace(b"\n", b"\r"),
    "comments": lambda stream: b": hi\n\n" + stream.replace(b"\n\n", b"\n\n: ping\n\n"),
    "several data lines": lambda stream: stream.replace(b', "', b',\ndata:  "'),
    "no event names": lambda stream: b"".join(
        line for line in stream.splitlines(keepends=True) if not line.startswith(b"event:")
    ),
    "an end as in Chat Completions": lambda stream: stream + b"data: [DONE]\n\n",
    "half an event at the end": lambda stream: stream + b"event: response.created\ndata: {",
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_dress_of_the_events_does_not_matter(change: str) -> None:
    done, plain = dressed(CHANGES[change]), dressed(lambda stream: stream)
    assert response(done.client) == response(plain.client)
    assert done.questions == plain.questions
    if change == "an end as in Chat Completions":
        assert done.client.count(b"[DONE]") == 1


def test_an_end_as_in_chat_completions_stays_the_end_where_our_calls_are_not_run() -> None:
    for name in ("mixed", "cut", "nothing of ours"):
        done = dressed(lambda stream: stream + b"data: [DONE]\n\n", name)
        assert done.client.endswith(b"}\n\ndata: [DONE]\n\n")


GARBAGE = [
    b"data: nonsense\n\n",
    b"data: []\n\n",
    b"event: x\n\n",
    b'data: {"type": 7}\n\n',
    b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
    b'data: {"type":"error","sequence_number":7,"message":"flat"}\n\n',
    b'data: {"type":"response.output_item.added","output_index":90,"item":null}\n\n',
    b'data: {"type":"response.output_item.added","item":{"type":"function_call","name":"bmcp"}}\n\n',
    b'data: {"type":"response.output_text.delta","output_index":[],"item_id":{},"delta":1}\n\n',
    b'data: {"type":"response.future","response":7}\n\n',
    b'data: {"type":"response.future","x":%b}\n\n' % (b"[" * 1000 + b"]" * 1000),
    b'data: {"type":"response.future","response":{"x":%b}}\n\n' % (b"[" * 1000 + b"]" * 1000),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_goes_on_as_it_came(garbage: bytes) -> None:
    assert played([Said(1, [say("x")])]).client == dressed_with(b"", [Said(1, [say("x")])]).client
    assert garbage in dressed_with(garbage, said("nothing of ours")).client


def dressed_with(garbage: bytes, rounds: Sequence[Said]) -> Played:
    return play(RESPONSES, request(), [garbage + each.stream() for each in rounds], stream=True)


def test_unknown_events_are_placed_and_numbered_like_the_others() -> None:
    later = encode(
        "response.future",
        b'{"type":"response.future","sequence_number":2,"output_index":0,"item_id":"new","n":1.50}',
    )
    rounds = said("text around")
    stream = rounds[1].stream()
    at = stream.index(b"event: response.output_item.added")
    answers = [rounds[0].stream(), stream[:at] + later + stream[at:], rounds[2].stream()]
    client = play(RESPONSES, request(), answers, stream=True).client
    (found,) = [event for event in events(client) if event["type"] == "response.future"]
    assert found["output_index"] == 3
    assert b'"n":1.50}' in client


def test_indexes_that_the_provider_skips_stay_skipped() -> None:
    stream = (
        Said(1, [say("Rain.")], echo={"tools": []}).stream().replace(b'"output_index": 0', b'"output_index": 4')
    )
    assert play(RESPONSES, request(), [stream], stream=True).client == stream


def bare(each: Said) -> bytes:
    """As servers speak that number nothing."""
    made = b""
    for event in events(each.stream()):
        kept = {name: value for name, value in event.items() if name not in ("output_index", "sequence_number")}
        made += encode(event["type"], json.dumps(kept, ensure_ascii=False).encode())
    return made


def test_an_end_that_needs_no_edit_is_not_lost() -> None:
    (only,) = said("cut", listed=False, echo={"tools": [READ]})
    done = play(RESPONSES, request(), [bare(only)], stream=True)
    assert bare(only).endswith(done.client[-200:])
    assert response(done.client)["status"] == "incomplete"


def test_items_without_an_index_are_known_by_their_ids() -> None:
    rounds = said("text around", listed=False)
    done = play(RESPONSES, request(), list(map(bare, rounds)), stream=True)
    assert done.questions == played(rounds).questions
    assert response(done.client)["output"] == expected_response(rounds)["output"]
    assert not any(prefix in done.client for prefix in OURS)


def test_an_event_with_only_an_item_id_belongs_to_its_item() -> None:
    stream = said("one call")[0].stream()
    start = stream.index(b"event: response.output_item.done")
    by_id = encode(
        "response.future", b'{"type":"response.future","item_id":"fc_a","name":"bmcp_weather_forecast"}'
    )
    nameless = Said(2, [say("x") | {"id": ""}])
    done = play(RESPONSES, request(), [stream[:start] + by_id + stream[start:], nameless.stream()], stream=True)
    assert not any(prefix in done.client for prefix in OURS)


def test_a_round_without_its_end_runs_nothing_and_raises_nothing() -> None:
    stream = said("one call")[0].stream()
    stream = stream[: stream.index(b"event: response.completed")]
    done = play(RESPONSES, request(), [stream + b"data: ha"], stream=True)
    assert done.turns[0].cut
    assert done.client.endswith(b"data: ha")
    assert not any(prefix in done.client for prefix in OURS)


DEEP = b'{"id":"r","output":%b}' % (b"[" * 1000 + b"]" * 1000)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nonsense", b'{"error":{"message":"no"}}', b"{}", DEEP])
def test_a_body_that_is_no_response_goes_on_as_it_came(body: bytes) -> None:
    first = play(RESPONSES, request(), [body], stream=False)
    assert first.client == body
    later = play(RESPONSES, request(), [said("one call")[0].body(), body], stream=False)
    assert later.client == body


def test_odd_members_of_a_response_raise_nothing() -> None:
    for members in ('"output":7', '"output":[1,"x"],"usage":[],"tools":{}', '"output":null,"status":1'):
        body = f'{{"id":"resp_1",{members}}}'.encode()
        assert play(RESPONSES, request(), [body], stream=False).client == body
        play(RESPONSES, request(), [said("one call")[0].body(), body], stream=False)


# Memory


def test_an_answer_is_known_by_what_it_says_after_what_was_before_and_by_its_ids() -> None:
    mixed = played(said("mixed")).composer.keys()
    assert mixed[1:] == (call_key("r1"), "responses:response:resp_1")
    assert played(said("approval")).composer.keys()[1] == call_key("mcpr_1")
    words, by_id = played(said("text around")).composer.keys()
    assert words.startswith("responses:")
    assert by_id == "responses:response:resp_1"
    assert played(said("mixed"), request("Something else?")).composer.keys()[0] != mixed[0]
    assert played(said("refusal")).composer.keys() == ("responses:response:resp_1",)
    assert play(RESPONSES, request(), [b"{}"], stream=False).composer.keys() == ()


ASKED: list[Any] = [
    "What?",
    [{"role": "user", "content": "What?"}, {"role": "developer", "content": "note"}],
    [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}],
        }
    ],
    [{"role": "user", "content": "What?"}, read("r1"), read("r2"), own("r1"), own("r2")],
    [],
]


@pytest.mark.parametrize("given_input", ASKED)
def test_the_clients_history_has_the_key_of_the_answer(given_input: Any) -> None:
    rounds = said("text around")
    answer = played(rounds, request(given_input)).composer.keys()
    shown = expected_response(rounds)["output"]
    before = [{"role": "user", "content": given_input}] if isinstance(given_input, str) else given_input
    history = [*before, *shown, {"role": "user", "content": "Thanks"}]
    assert answer[0] in TOOLING.keys(payload(input=history))
    simple = {"role": "assistant", "content": "I look.Wait.And the time.Rain at ten."}
    assert answer[0] in TOOLING.keys(payload(input=[*before, simple]))
    assert TOOLING.keys(payload(input="x", previous_response_id="resp_1")) == (answer[1],)


def test_the_keys_of_a_history() -> None:
    history = [*QUESTION, say("a"), own("z"), think("1"), *QUESTION, read("r1"), own("r1")]
    first, second = TOOLING.keys(payload(input=history, conversation=None))
    assert first != second
    held = TOOLING.keys(payload(input=[own("r1"), own("z"), 7], conversation="conv_1"))
    assert held == (call_key("r1"), call_key("z"))
    assert TOOLING.keys(payload(input=7)) == ()


def follow_up(done: Played, history: list[Any], **fields: Any) -> list[Any]:
    body = request(history, **fields)
    found = {key: turn for key, turn in done.remembered().items() if key in TOOLING.keys(RESPONSES.parse(body))}
    made = json.loads(TOOLING.request(RESPONSES.parse(body), TOOLS, found, True).body())
    items: list[Any] = made["input"]
    return items


def conversation_of(done: Played, rounds: Sequence[Said]) -> list[Item]:
    """What the provider was asked last and said to it."""
    return [*done.questions[-1]["input"], *rounds[-1].output]


THANKS: list[Item] = [{"role": "user", "content": "Thanks"}]


@BOTH_FORMS
@pytest.mark.parametrize("bare", [False, True], ids=["with reasoning", "without"])
@pytest.mark.parametrize("name", ["one call", "text around", "parallel"])
def test_the_provider_gets_the_conversation_that_it_produced(name: str, bare: bool, stream: bool) -> None:
    rounds = said(name)
    done = played(rounds, stream=stream)
    shown = expected_response(rounds)["output"]
    history = [item for item in shown if not (bare and item["type"] == "reasoning")]
    made = follow_up(done, [*QUESTION, *history, *THANKS])
    last = [item for item in rounds[-1].output if item in history]
    assert made == [*done.questions[-1]["input"], *last, *THANKS]


@BOTH_FORMS
@pytest.mark.parametrize("bare", [False, True], ids=["with reasoning", "without"])
@pytest.mark.parametrize("name", ["mixed", "mixed, theirs first", "mixed later", "mixed kinds"])
def test_a_mixed_turn_comes_back_whole_with_all_results_in_order(name: str, bare: bool, stream: bool) -> None:
    rounds = said(name)
    done = played(rounds, stream=stream)
    shown = [item for item in expected_response(rounds)["output"] if not (bare and item["type"] == "reasoning")]
    answers = [own(item["call_id"]) for item in shown if "call_id" in item]
    made = follow_up(done, [*QUESTION, *shown, *reversed(answers), *THANKS])
    calls = [item["call_id"] for item in rounds[-1].output if "call_id" in item]
    results = [own(each) if own(each) in answers else result(each) for each in calls]
    assert made == [*conversation_of(done, rounds), *results, *THANKS]


def test_an_approval_is_an_answer_too() -> None:
    done = played(said("approval"))
    approved = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    made = follow_up(done, [*QUESTION, APPROVAL, approved])
    assert made == [*QUESTION, call("a"), APPROVAL, result("a"), approved]


def test_a_mixed_turn_that_the_client_does_not_answer_is_still_answered_for_us() -> None:
    done = played(said("mixed, theirs first"))
    assert follow_up(done, [*QUESTION, read("r1")]) == [*QUESTION, read("r1"), call("a"), result("a")]
    made = follow_up(done, [*QUESTION, read("r1"), *THANKS])
    assert made == [*QUESTION, read("r1"), call("a"), result("a"), *THANKS]


def test_a_client_may_answer_each_call_at_once() -> None:
    done = played(said("mixed"))
    made = follow_up(done, [*QUESTION, say("I look."), read("r1"), own("r1"), read("r2"), own("r2")])
    ours = [call("a"), read("r1"), call("b", "bact_clock")]
    results = [result("a"), own("r1"), result("b")]
    assert made == [*QUESTION, say("I look."), *ours, *results, read("r2"), own("r2")]


def test_reasoning_that_was_not_sent_back_stays_where_the_client_has_it() -> None:
    rounds = [Said(1, [think("1"), say("First."), call("a")]), Said(2, [think("2"), call("b"), read("r1")])]
    done = played(rounds, request(store=False))
    shown = expected_response(rounds)["output"]
    made = follow_up(done, [*QUESTION, *shown, own("r1")], store=False)
    second = [call("b"), think("2"), read("r1"), result("b"), own("r1")]
    assert made == [*QUESTION, say("First."), call("a"), result("a"), *second]


ALTERED: list[list[Item]] = [
    [say("I look.Wait.And the time.Rain at ten.")],
    [think("1"), think("3"), say("I look.Wait.And the time.Rain at ten.")],
    [say("I look."), read("r9"), say("Wait."), say("And the time."), say("Rain at ten.")],
]


@pytest.mark.parametrize("altered", ALTERED)
def test_altered_history_stays_as_the_client_has_it(altered: list[Item]) -> None:
    done = played(said("text around"))
    history = [*QUESTION, *altered, *THANKS]
    assert follow_up(done, history) == history
    turns = dict.fromkeys(TOOLING.keys(payload(input=history)), done.hidden)
    request_made = TOOLING.request(RESPONSES.parse(request(history)), TOOLS, turns, True)  # type: ignore[arg-type]
    assert json.loads(request_made.body())["input"] == history


def test_after_a_composed_answer_the_provider_goes_on_from_its_last_response() -> None:
    done = played(said("text around"))
    body = request("Thanks", previous_response_id="resp_1")
    made = play(RESPONSES, body, [Said(4, [call("d")]).stream(), Said(5, [say("x")]).stream()], stream=True,
                recalled=done.remembered())  # fmt: skip
    assert [question["previous_response_id"] for question in made.questions] == ["resp_3", "resp_3"]
    assert made.questions[0]["input"] == "Thanks"
    rounds = [Said(4, [say("x")], echo={"previous_response_id": "resp_3"})]
    for stream in (True, False):
        seen = played(rounds, body, stream=stream, recalled=done.remembered()).client
        assert (response(seen) if stream else json.loads(seen))["previous_response_id"] == "resp_1"


HELD: list[dict[str, Any]] = [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}]


@pytest.mark.parametrize("fields", HELD)
def test_to_a_conversation_that_the_provider_holds_only_our_results_are_missing(fields: dict[str, Any]) -> None:
    done = played(said("mixed"))
    assert follow_up(done, [own("r2"), own("r1")], **fields) == [result("a"), own("r1"), result("b"), own("r2")]
    made = follow_up(done, [*THANKS, own("r1"), own("r2")], **fields)
    assert made == [*THANKS, result("a"), own("r1"), result("b"), own("r2")]


def test_a_mixed_turn_goes_on_from_its_last_response_with_only_its_results() -> None:
    done = played(said("mixed later"))
    body = request([own("r1")], previous_response_id="resp_1")
    made = played([Said(3, [call("c")]), Said(4, [say("x")])], body, recalled=done.remembered())
    first, second = made.questions
    assert first["input"] == [own("r1"), result("b")]
    assert second["input"] == [*first["input"], call("c"), result("c")]
    assert (first["previous_response_id"], second["previous_response_id"]) == ("resp_2", "resp_2")


def test_our_results_are_given_also_where_the_client_answers_nothing() -> None:
    done = played(said("mixed"))
    assert follow_up(done, THANKS, previous_response_id="resp_1") == [result("a"), result("b"), *THANKS]


def test_a_turn_without_the_id_of_its_last_response_leaves_the_clients() -> None:
    turn = HiddenTurn((Round(b"[]", ()),))
    body = request("Thanks", previous_response_id="resp_1")
    made = TOOLING.request(RESPONSES.parse(body), TOOLS, {"responses:response:resp_1": turn}, True).body()
    assert json.loads(made)["previous_response_id"] == "resp_1"


def test_a_local_shells_output_names_its_call_as_its_own_id() -> None:
    shell = {"type": "local_shell_call", "id": "lsh_1", "call_id": "s1", "action": {}, "status": "completed"}
    rounds = [Said(1, [call("a"), shell])]
    done = played(rounds)
    answer = {"type": "local_shell_call_output", "id": "s1", "output": "x"}
    assert follow_up(done, [*QUESTION, shell, answer]) == [*QUESTION, call("a"), shell, result("a"), answer]


def test_a_chain_goes_on_also_where_no_tools_are_offered() -> None:
    """The provider's real end is another response, and it waits for the output of our call."""
    done = played(said("mixed later"))
    body = request([own("r1")], previous_response_id="resp_1", tools=[])
    request_ = TOOLING.request(RESPONSES.parse(body), (), done.remembered(), False)
    asked = json.loads(request_.body())
    assert asked["previous_response_id"] == "resp_2"
    assert {each["call_id"] for each in asked["input"]} > {"r1"}
    assert asked["tools"] == []
    assert "parallel_tool_calls" not in asked
