"""Injected tools through the running gateway: real MCP servers and actions, all protocols, the official SDKs."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.fake_provider import Received, Reply
from tests.fake_provider.model import USAGE, Call, Json, Model, Part, Say, Think, Wait, whole
from tests.system.client import Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import RELAYED, ROOT, ROUTES, Gateway, Setup, two_vendors

pytestmark = pytest.mark.system

PROTOCOLS = ("messages", "chat_completions", "responses")
PING = {"messages": b"event: ping\n", "chat_completions": b": ping\n", "responses": b": ping\n"}
ECHO, ADD, SLOW, SHOUT = "bmcp_example_echo", "bmcp_example_add", "bmcp_example_slow", "bact_shout"

TOML = f"""{two_vendors("retry = { max_retries = 0 }")}
[[mcp_servers]]
name = "example"
url = "http://127.0.0.1:%d/mcp"

[[mcp_servers]]
name = "down"
url = "http://127.0.0.1:1/mcp"

[actions]
dir = "{ROOT / "tests/system/actions"}"
"""


class McpServer:
    """examples/mcp_server.py on a port of its own; it can be killed and started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (sys.executable, str(ROOT / "examples/mcp_server.py"), "--port", str(self.port))
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def mcp_server() -> Iterator[McpServer]:
    server = McpServer()
    server.start()
    yield server
    server.kill()


def tools_known(gateway: Gateway) -> bool:
    with gateway.get("/readyz") as answer:
        return bool(answer.read().json()["mcp_servers"]["example"]["connected"])


@pytest.fixture
def gateway(gateways: Gateways, mcp_server: McpServer) -> Gateway:
    gateway = gateways(Setup(TOML % mcp_server.port, environment=(("AIBRIDGE_SERVER_PING_INTERVAL", "0.3"),)))
    eventually(lambda: tools_known(gateway))
    return gateway


CLIENT_TOOLS: dict[str, Json] = {
    "messages": {"name": "Read", "input_schema": {"type": "object"}},
    "chat_completions": {"type": "function", "function": {"name": "Read", "parameters": {"type": "object"}}},
    "responses": {"type": "function", "name": "Read", "parameters": {"type": "object"}, "strict": False},
}


def request(protocol: str, *, stream: bool, history: Sequence[Json] = (), **fields: Any) -> Json:
    asked: Json = {"role": "user", "content": "What now?"}
    turns = [asked, *history]
    body: Json = {"model": "m", "tools": [CLIENT_TOOLS[protocol]], "stream": stream, **fields}
    body |= {"input": turns} if protocol == "responses" else {"messages": turns}
    return body | ({"max_tokens": 99} if protocol == "messages" else {})


def answer(gateway: Gateway, protocol: str, body: Json, user: str = "alice") -> Json:
    """What an official SDK makes of the answer: texts, client calls, how it ended, usage."""
    headers = {"X-User-ID": user}
    match protocol:
        case "messages":
            return _message(anthropic.Anthropic(api_key="own", base_url=f"{gateway.url}/anthropic"), body, headers)
        case "chat_completions":
            return _chat(openai.OpenAI(api_key="own", base_url=f"{gateway.url}/openai/v1"), body, headers)
    return _response(openai.OpenAI(api_key="own", base_url=f"{gateway.url}/openai/v1"), body, headers)


def _message(client: anthropic.Anthropic, body: Json, headers: dict[str, str]) -> Json:
    asked: Any = {name: value for name, value in body.items() if name != "stream"} | {"extra_headers": headers}
    if body["stream"]:
        with client.messages.stream(**asked) as events:
            message = events.get_final_message().to_dict(mode="json")
    else:
        message = client.messages.create(**asked).to_dict(mode="json")
    content: Any = message["content"]
    usage: Any = message["usage"]
    return {
        "whole": message,
        "texts": [block["text"] for block in content if block["type"] == "text"],
        "thoughts": [block["thinking"] for block in content if block["type"] == "thinking"],
        "calls": [block["id"] for block in content if block["type"] == "tool_use"],
        "end": message["stop_reason"],
        "usage": (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]),
    }


def _chat(client: openai.OpenAI, body: Json, headers: dict[str, str]) -> Json:
    asked: Any = {**body, "extra_headers": headers}
    if body["stream"]:
        state: Any = ChatCompletionStreamState()
        for chunk in client.chat.completions.create(**asked, stream_options={"include_usage": True}):
            state.handle_chunk(chunk)
        completion = state.get_final_completion().to_dict(mode="json")
    else:
        completion = client.chat.completions.create(**asked).to_dict(mode="json")
    (choice,) = completion["choices"]
    message, usage = choice["message"], completion["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "whole": message,
        "texts": [message["content"]] if message["content"] else [],
        "thoughts": [message["reasoning_content"]] if message.get("reasoning_content") else [],
        "calls": [call["id"] for call in message.get("tool_calls") or []],
        "end": choice["finish_reason"],
        "usage": (usage["prompt_tokens"] - cached, cached, usage["completion_tokens"]),
    }


def _response(client: openai.OpenAI, body: Json, headers: dict[str, str]) -> Json:
    asked: Any = {name: value for name, value in body.items() if name != "stream"} | {"extra_headers": headers}
    if body["stream"]:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response().to_dict(mode="json")
    else:
        response = client.responses.create(**asked).to_dict(mode="json")
    items: Any = response["output"]
    usage: Any = response["usage"]
    cached = usage["input_tokens_details"]["cached_tokens"]
    return {
        "whole": response,
        "texts": [item["content"][0]["text"] for item in items if item["type"] == "message"],
        "thoughts": [item["summary"][0]["text"] for item in items if item["type"] == "reasoning"],
        "calls": [item["call_id"] for item in items if item["type"] == "function_call"],
        "end": response["status"],
        "usage": (usage["input_tokens"] - cached, cached, usage["output_tokens"]),
    }


def say_hi(call_id: str, text: str = "hi") -> Call:
    return Call(call_id, ECHO, json.dumps({"text": text}))


DIALOGUES: dict[str, list[list[Part]]] = {
    "one round": [[Say("I look."), say_hi("call_a")], [Say("Done.")]],
    "no preamble": [[say_hi("call_a")], [Say("Done.")]],
    "three rounds": [
        [Think("hm"), Say("One."), say_hi("call_a")],
        [Say("Two."), Call("call_b", SHOUT, '{"text": "x"}')],
        [Think("so"), Say("Three."), Call("call_c", ADD, '{"a": 1, "b": 2}')],
        [Say("Done.")],
    ],
    "parallel": [
        [say_hi("call_a", "A"), say_hi("call_b", "B"), Call("call_c", ADD, '{"a": 1, "b": 2}')],
        [Say("Done.")],
    ],
    "mixed": [[Say("Both."), say_hi("call_a"), Call("r", "Read"), Call("call_b", SHOUT, '{"text": "x"}')]],
    "mixed later": [[Say("One."), say_hi("call_a")], [Say("Two."), Call("r", "Read"), say_hi("call_b")]],
}


def rounds_of(dialogue: Sequence[Sequence[Part]], kind: type[Say] | type[Think]) -> list[str]:
    return [part.text for each in dialogue for part in each if isinstance(part, kind)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", DIALOGUES)
def test_the_sdk_gets_one_message_without_our_calls(
    gateway: Gateway, actor: str, protocol: str, name: str, stream: bool
) -> None:
    dialogue = DIALOGUES[name]
    model = Model(protocol, dialogue)
    gateway.provider.always(model)
    got = answer(gateway, protocol, request(protocol, stream=stream), actor)

    assert "".join(got["texts"]) == "".join(rounds_of(dialogue, Say))
    assert "".join(got["thoughts"]) == "".join(rounds_of(dialogue, Think))
    mixed = name.startswith("mixed")
    assert got["calls"] == (["r"] if mixed else [])
    assert (
        got["end"]
        == {
            "messages": "tool_use" if mixed else "end_turn",
            "chat_completions": "tool_calls" if mixed else "stop",
            "responses": "completed",
        }[protocol]
    )
    assert got["usage"] == tuple(count * len(dialogue) for count in USAGE)
    assert "bmcp_" not in json.dumps(got["whole"])
    assert "bact_" not in json.dumps(got["whole"])

    rows = gateway.recorded_for(actor)
    assert rows.interception["rounds"] == len(dialogue) == len(model.requests)
    assert rows.interception["status"] == "completed"
    assert [row["output_tokens"] for row in rows.tokens] == [USAGE[2]] * len(dialogue)
    calls = [part for each in dialogue for part in each if isinstance(part, Call)]
    recorded = {row["provider_tool_call_id"]: row for row in rows.tools}
    assert set(recorded) == {call.id for call in calls}
    for call in calls:
        row = recorded[call.id]
        assert (row["tool"], bool(row["injected"])) == {
            "Read": ("Read", False),
            ECHO: ("echo", True),
            ADD: ("add", True),
            SHOUT: ("shout", True),
        }[call.name]
        assert json.loads(row["input"]) == json.loads(call.arguments)
        assert row["invocation_error"] is None
        assert (row["duration_ms"] is not None) == bool(row["injected"])
        assert (row["server_url"] is None) == (not row["injected"])
    assert [row["prompt"] for row in rows.prompts] == ["What now?"]


def conversation(body: Json) -> list[Json]:
    turns: list[Json] = body["messages"] if "messages" in body else body["input"]
    return turns


def results_in(body: Json) -> list[str]:
    """The texts of the tool results in a request."""
    found = []
    for turn in conversation(body):
        blocks = turn["content"] if isinstance(turn.get("content"), list) else [turn]
        for block in blocks:
            content: Any = block.get("output") or block.get("content")
            if block.get("type") in ("tool_result", "function_call_output") or block.get("role") == "tool":
                found.append(content if isinstance(content, str) else content[0]["text"])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_go_back_in_the_order_of_the_calls(gateway: Gateway, protocol: str) -> None:
    calls = [
        Call("s", SLOW, '{"seconds": 0.3}'),
        say_hi("a"),
        Call("u", SHOUT, '{"text": "loud"}'),
        say_hi("b", "b"),
    ]
    model = Model(protocol, [calls, [Say("Done.")]])
    gateway.provider.always(model)
    answer(gateway, protocol, request(protocol, stream=True))
    assert results_in(model.requests[1]) == ["waited 0.3 s", "hi", "LOUD", "b"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_text_comes_before_the_round_ends_and_pings_while_a_tool_runs(gateway: Gateway, protocol: str) -> None:
    hold = gateway.provider.hold()
    dialogue: list[list[Part]] = [
        [Say("Patience."), Wait(hold), Call("s", SLOW, '{"seconds": 1.5}')],
        [Say("Done.")],
    ]
    gateway.provider.always(Model(protocol, dialogue))
    body = json.dumps(request(protocol, stream=True)).encode()
    with gateway.post(body, target=ROUTES[protocol]) as got:
        got.read_until(b"ence.")
        before = got.body.count(PING[protocol])
        hold.set()
        got.read_until(PING[protocol], before + 3)
        assert b"Do" not in got.body
        got.read()
    assert got.ended == "clean"
    assert b"Do" in got.body


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_tool_says_of_its_failure_is_for_the_model(
    gateway: Gateway, actor: str, protocol: str, stream: bool
) -> None:
    calls = [
        Call("f", "bmcp_example_fail", '{"reason": "no rain"}'),
        Call("w", ADD, '{"a": "one"}'),
        Call("n", "bmcp_example_echo", '{"text": 5}'),
    ]
    model = Model(protocol, [calls, [Say("Sorry.")]])
    gateway.provider.always(model)
    got = answer(gateway, protocol, request(protocol, stream=stream), actor)
    assert got["texts"] == ["Sorry."]
    told = results_in(model.requests[1])
    assert "no rain" in told[0]
    assert all("the arguments are not valid" in each for each in told[1:])
    rows = gateway.recorded_for(actor)
    assert all(row["invocation_error"] for row in rows.tools)
    assert rows.interception["status"] == "completed"


@pytest.mark.parametrize("protocol", ["messages", "chat_completions"])
def test_arguments_that_are_no_json(gateway: Gateway, actor: str, protocol: str) -> None:
    model = Model(protocol, [[Call("x", ECHO, '{"text": "cut')], [Say("Sorry.")]])
    gateway.provider.always(model)
    assert answer(gateway, protocol, request(protocol, stream=True), actor)["texts"] == ["Sorry."]
    assert "not a JSON object" in results_in(model.requests[1])[0]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_calls_for_ever_comes_to_an_end(
    gateway: Gateway, actor: str, protocol: str, stream: bool
) -> None:
    model = Model(protocol, [[Say("More. "), say_hi("a")]])
    gateway.provider.always(model)
    got = answer(gateway, protocol, request(protocol, stream=stream), actor)
    assert "".join(got["texts"]) == "More. " * 10
    assert got["end"] in ("end_turn", "stop", "completed")
    assert len(model.requests) == 10
    assert gateway.recorded_for(actor).interception["rounds"] == 10


def test_a_model_that_only_calls_is_an_error_for_a_blocking_client(gateway: Gateway, actor: str) -> None:
    gateway.provider.always(Model("messages", [[say_hi("a")]]))
    body = json.dumps(request("messages", stream=False)).encode()
    with gateway.post(body, [("X-User-ID", actor)]) as got:
        assert got.read().status == 502
    assert got.error()[0] == "api_error"
    rows = gateway.recorded_for(actor)
    assert (rows.interception["status"], len(rows.tokens)) == ("failed", 10)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_twenty_five_calls_at_once(gateway: Gateway, protocol: str) -> None:
    calls = [Call(f"c{number}", ADD, json.dumps({"a": number, "b": 1})) for number in range(25)]
    model = Model(protocol, [calls, [Say("Done.")]])
    gateway.provider.always(model)
    answer(gateway, protocol, request(protocol, stream=True))
    assert results_in(model.requests[1]) == [str(number + 1) for number in range(25)]


# --- who gets tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "claude-haiku-5"},
        {"tool_choice": {"type": "none"}},
        {"thread": {"previous_message_id": "msg_0"}},
        {"messages": 7},
    ],
    ids=["small model", "tool_choice none", "thread", "nonsense"],
)
def test_requests_without_tools_pass_byte_for_byte(gateway: Gateway, fields: Json) -> None:
    gateway.provider.reply(Reply.json({"type": "message", "content": [], "usage": {}}))
    body = json.dumps(request("messages", stream=False) | fields).encode()
    with gateway.post(body) as got:
        got.read()
    assert bytes(gateway.provider.whole_request().body) == body


def test_the_same_request_gets_the_same_bytes(gateway: Gateway) -> None:
    gateway.provider.always(Model("messages", [[Say("Done.")]]))
    body = json.dumps(request("messages", stream=False)).encode()
    for _ in range(5):
        with gateway.post(body) as got:
            got.read()
    sent = {bytes(received.body) for received in gateway.provider.received}
    assert len(sent) == 1
    names = [tool["name"] for tool in json.loads(sent.pop())["tools"]]
    assert names == [*sorted(names[:-1]), "Read"]
    assert SHOUT in names
    assert ECHO in names


def test_background_responses_do_not_go_together_with_tools(gateway: Gateway) -> None:
    body = json.dumps(request("responses", stream=False, background=True)).encode()
    with gateway.post(body, target=ROUTES["responses"]) as got:
        assert got.read().status == 501
    assert got.json()["error"]["code"] == "not_supported"
    assert not gateway.provider.received


# --- hidden turns ------------------------------------------------------------------------------------------------


def follow_up(protocol: str, got: Json) -> list[Json]:
    """What a client appends to its history: its copy of the answer, and the results of its own calls."""
    whole = got["whole"]
    match protocol:
        case "messages":
            results = [{"type": "tool_result", "tool_use_id": each, "content": "read"} for each in got["calls"]]
            return [
                {"role": "assistant", "content": whole["content"]},
                {"role": "user", "content": results or "And?"},
            ]
        case "chat_completions":
            copy = {name: whole[name] for name in ("role", "content", "tool_calls") if whole.get(name)}
            results = [{"role": "tool", "tool_call_id": each, "content": "read"} for each in got["calls"]]
            return [copy, *(results or [{"role": "user", "content": "And?"}])]
    results = [{"type": "function_call_output", "call_id": each, "output": "read"} for each in got["calls"]]
    return [*whole["output"], *(results or [{"role": "user", "content": "And?"}])]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["mixed", "mixed later", "one round", "three rounds"])
def test_the_next_request_brings_back_what_the_client_did_not_see(
    gateway: Gateway, actor: str, protocol: str, name: str, stream: bool
) -> None:
    model = Model(protocol, [*DIALOGUES[name], [Say("At last.")]])
    gateway.provider.always(model)
    got = answer(gateway, protocol, request(protocol, stream=stream), actor)
    again = request(protocol, stream=stream, history=follow_up(protocol, got))
    assert answer(gateway, protocol, again, actor)["texts"] == ["At last."]
    sent = json.dumps(conversation(model.requests[-1]))
    for part in (part for each in DIALOGUES[name] for part in each if isinstance(part, Call)):
        assert sent.count(json.dumps(part.id)) == 2  # the call and its result
    for text in rounds_of(DIALOGUES[name], Say):
        assert sent.count(json.dumps(text)) == 1

    stranger = answer(gateway, protocol, again, f"not {actor}")
    assert stranger["texts"] == ["At last."]
    assert "bmcp_example_echo" not in json.dumps(
        model.requests[-1].get("messages", model.requests[-1].get("input"))
    )


def test_a_chain_of_responses_goes_on_where_the_provider_is(gateway: Gateway, actor: str) -> None:
    model = Model("responses", [*DIALOGUES["mixed later"], [Say("At last.")]])
    gateway.provider.always(model)
    got = answer(gateway, "responses", request("responses", stream=True), actor)
    assert got["whole"]["id"] == "resp_1"
    results = [{"type": "function_call_output", "call_id": "r", "output": "read"}]
    body = request("responses", stream=False) | {"input": results, "previous_response_id": "resp_1"}
    gateway.provider.reset()
    gateway.provider.reply(Reply.json(whole("responses", 3, [Say("At last.")])))
    answer(gateway, "responses", body, actor)
    sent = gateway.provider.whole_request().json()
    assert sent["previous_response_id"] == "resp_2"
    assert sorted(item["call_id"] for item in sent["input"]) == ["call_b", "r"]


# --- when things go wrong ----------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_a_tool_runs(gateway: Gateway, actor: str) -> None:
    gateway.provider.always(Model("messages", [[Say("Wait."), Call("s", SLOW, '{"seconds": 30}')]]))
    body = json.dumps(request("messages", stream=True)).encode()
    with gateway.post(body, [("X-User-ID", actor)]) as got:
        got.read_until(PING["messages"], 2)
    left = time.monotonic()
    rows = gateway.recorded_for(actor)
    assert time.monotonic() - left < 5
    assert rows.interception["status"] == "cancelled"
    (row,) = rows.tools
    assert (row["tool"], row["invocation_error"]) == ("slow", "the client left")
    assert len(rows.tokens) == 1


def test_whose_tools_are_slow_holds_nobody_else_up(gateways: Gateways, mcp_server: McpServer) -> None:
    """More streams wait for tools than there are threads; another one ends, and one is left by its client."""
    few_threads = (("AIBRIDGE_SERVER_THREADS", "4"), ("AIBRIDGE_SERVER_PING_INTERVAL", "0.3"))
    gateway = gateways.own(Setup(TOML % mcp_server.port, environment=(*few_threads, *RELAYED))).start()
    eventually(lambda: tools_known(gateway))
    begun, end, never = (gateway.provider.hold() for _ in range(3))
    slow: list[Part] = [Say("Wait."), Wait(begun), Call("s", SLOW, '{"seconds": 30}')]
    turns: dict[str, list[Part]] = {
        "slow": slow,
        "haiku": [Say("I am done."), Wait(end)],
        "haiku-silent": [Say("Well"), Wait(never)],
    }
    gateway.provider.always(lambda received: Model("messages", [turns[_model(received)]])(received))

    def opened(model: str) -> Exchange:
        body = json.dumps(request("messages", stream=True, model=model)).encode()
        return gateway.post(body).read_until(b"text_delta")

    waiting = [opened("slow") for _ in range(5)]
    ending, left = opened("haiku"), opened("haiku-silent")
    begun.set()
    for each in waiting:
        each.read_until(PING["messages"])
    end.set()
    left.close()
    assert gateway.provider.request(7).gone.wait(5)
    assert ending.read().ended == "clean"
    for each in waiting:
        each.close()


def _model(received: Received) -> str:
    assert received.arrived.wait(10)
    model: str = received.json()["model"]
    return model


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
def test_a_later_round_that_the_provider_refuses(gateway: Gateway, actor: str, stream: bool) -> None:
    model = Model("messages", [[Say("I look."), say_hi("a")]])
    busy = Reply.json({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, status=529)
    gateway.provider.always(lambda received: busy if model.requests else model(received))
    body = json.dumps(request("messages", stream=stream)).encode()
    with gateway.post(body, [("X-User-ID", actor)]) as got:
        got.read()
    rows = gateway.recorded_for(actor)
    assert (rows.interception["status"], rows.interception["error_type"]) == ("failed", "overloaded")
    assert rows.interception["rounds"] == 2
    if stream:
        assert got.ended == "cut"
        assert b"event: error" in got.body
        assert b"message_stop" not in got.body
    else:
        assert (got.status, got.json()["error"]["message"]) == (529, "busy")


def test_secrets_and_large_results(gateways: Gateways, tmp_path: Path, mcp_server: McpServer) -> None:
    """A result of 50 MB is cut, and told to be."""
    action = (ROOT / "tests/system/actions/shout.md").read_text()
    argv = json.dumps([sys.executable, "-c", "print('x' * 50_000_000)"])
    action = action.replace('["tr", "a-z", "A-Z"]', argv).replace('"shout"', '"flood"')
    (tmp_path / "flood.md").write_text(action)
    toml = (TOML % mcp_server.port).replace(str(ROOT / "tests/system/actions"), str(tmp_path))
    gateway = gateways.own(Setup(toml)).start()
    model = Model("messages", [[Call("f", "bact_flood", '{"text": "x"}')], [Say("Done.")]])
    gateway.provider.always(model)
    answer(gateway, "messages", request("messages", stream=True))
    (result,) = results_in(model.requests[1])
    assert len(result) < 70_000
    assert "[cut: " in result


def test_a_killed_mcp_server_costs_no_request(gateways: Gateways) -> None:
    server = McpServer()
    server.start()
    try:
        gateway = gateways.own(Setup(TOML % server.port)).start()
        eventually(lambda: tools_known(gateway))
        gateway.provider.always(echoing)
        stop = threading.Event()

        def keep_asking(number: int) -> list[Json]:
            answers = []
            while not stop.is_set():
                answers.append(answer(gateway, "messages", request("messages", stream=True), f"user-{number}"))
            return answers

        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(keep_asking, number) for number in range(8)]
            eventually(lambda: len(gateway.provider.received) > 20)
            server.kill()
            eventually(lambda: not tools_known(gateway))
            server.start()
            eventually(lambda: tools_known(gateway), within=40)
            known = len(gateway.provider.received)
            eventually(lambda: len(gateway.provider.received) > known + 20)
            stop.set()
            answers = [each for one in asking for each in one.result()]
        assert {tuple(each["texts"]) for each in answers} == {("Done.",)}
        assert {row["status"] for row in gateway.rows("interceptions")} == {"completed"}
        errors = {row["invocation_error"] for row in gateway.rows("tool_usages")}
        assert None in errors
    finally:
        server.kill()


def echoing(received: Received) -> Reply:
    """Calls echo if it is offered, and is done when it has a result."""
    assert received.arrived.wait(10)
    body = received.json()
    offered = any(tool["name"] == ECHO for tool in body["tools"])
    rounds: list[list[Part]] = [[say_hi("a")]] if offered and len(body["messages"]) == 1 else [[Say("Done.")]]
    return Model("messages", rounds)(received)
