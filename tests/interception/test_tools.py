"""What a request is offered, and the one door to every call."""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from aibridge.interception.calls import PLACES, Asker, Calls
from aibridge.interception.toolbox import CallContext, ToolFailed, wire_name
from aibridge.interception.tools import Catalogue, Outcome, Toolbelt, bounded
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.tools import Image, Text, Tool, ToolCall, ToolResult
from aibridge.settings import Tools
from tests.fakes import FakeClock, FakeToolbox, text_result

TOOLING = MESSAGES.tooling
ECHO = ToolCall("call_1", "bmcp_fake_echo", '{"text":"hi"}')


def echo(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    return text_result(str(arguments.get("text")))


def fails(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    raise ToolFailed("the server said no")


def crashes(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    raise RuntimeError("a bug with a secret in it")


def asked(body: bytes = b'{"model":"claude-sonnet-5"}', toolbelt: Toolbelt | None = None) -> Catalogue | None:
    """What is offered, None for nothing."""
    catalogue = (toolbelt or belt(FakeToolbox(echo=echo))).catalogue(MESSAGES.parse(body), TOOLING)
    return catalogue if catalogue.tools else None


def belt(*toolboxes: FakeToolbox, **settings: Any) -> Toolbelt:
    return Toolbelt(toolboxes, Tools(**settings))


def called(toolbox: FakeToolbox, call: ToolCall, toolbelt: Toolbelt | None = None) -> Outcome:
    toolbelt = toolbelt or belt(toolbox)
    catalogue = toolbelt.catalogue(MESSAGES.parse(b"{}"), TOOLING)
    return toolbelt.call(catalogue, call, context())


def context(deadline: float | None = None) -> CallContext:
    return CallContext("alice", "interception", time.monotonic() + 5 if deadline is None else deadline, "msg_1")


def text_of(outcome: Outcome) -> str:
    (part,) = outcome.result.parts
    assert isinstance(part, Text)
    return part.text


# --- the catalogue -----------------------------------------------------------------------------------------------


def test_tools_are_offered_in_the_order_of_their_names() -> None:
    toolbelt = belt(FakeToolbox(b=echo, a=echo), FakeToolbox(c=echo))
    catalogue = asked(toolbelt=toolbelt)
    assert catalogue is not None
    assert [tool.wire_name for tool in catalogue.tools] == ["bmcp_fake_a", "bmcp_fake_b", "bmcp_fake_c"]


def test_the_first_of_two_tools_with_one_name_counts() -> None:
    first, second = FakeToolbox(echo=echo), FakeToolbox(echo=fails)
    toolbelt = belt(first, second)
    assert text_of(called(first, ECHO, toolbelt)) == "hi"
    assert second.calls == []


def test_the_clients_tool_of_the_same_name_wins() -> None:
    body = b'{"tools":[{"name":"bmcp_fake_echo"}]}'
    assert asked(body) is None
    catalogue = asked(body, belt(FakeToolbox(echo=echo, other=echo)))
    assert catalogue is not None
    assert [tool.name for tool in catalogue.tools] == ["other"]
    assert "bmcp_fake_echo" not in catalogue


@pytest.mark.parametrize(
    ("body", "setting"),
    [
        (b'{"model":"claude-haiku-5"}', {"skip_models": ()}),
        (b'{"tool_choice":{"type":"none"}}', {"skip_tool_choice_none": False}),
        (b'{"thread":{"previous_message_id":"msg_1"}}', {"skip_continued": False}),
    ],
)
def test_who_gets_no_tools_unless_the_settings_say_so(body: bytes, setting: dict[str, Any]) -> None:
    assert asked(body) is None
    assert asked(body, belt(FakeToolbox(echo=echo), **setting)) is not None


def test_without_tools_there_is_no_catalogue() -> None:
    assert asked(toolbelt=belt()) is None
    assert asked(toolbelt=belt(FakeToolbox())) is None
    assert asked(toolbelt=belt(FakeToolbox(echo=echo), max_rounds=1)) is None


def test_a_provider_that_takes_only_so_many_tools_gets_no_more() -> None:
    toolbelt = belt(FakeToolbox(a=echo, b=echo, c=echo))
    payload = MESSAGES.parse(b'{"tools":[{"name":"mine"}]}')
    catalogue = toolbelt.catalogue(payload, replace(TOOLING, most_tools=3))
    assert [tool.name for tool in catalogue.tools] == ["a", "b"]
    for _ in range(2):
        assert not toolbelt.catalogue(payload, replace(TOOLING, most_tools=1)).tools


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("bmcp", "deep wiki", "ask/it"), "bmcp_deep_wiki_ask_it"),
        (("bact", "ship-update"), "bact_ship-update"),
        (("bmcp", "s", "x" * 57), "bmcp_s_" + "x" * 57),
        (("bmcp", "s", "x" * 58), "bmcp_s_" + "x" * 50 + "_5d90e6"),
    ],
)
def test_wire_names_are_legal_and_short(names: tuple[str, ...], expected: str) -> None:
    made = wire_name(*names)
    assert len(made) <= 64
    assert made[:57] == expected[:57]
    assert made == wire_name(*names)
    assert wire_name("bmcp", "s", "x" * 59) != wire_name("bmcp", "s", "x" * 58)


# --- one call ----------------------------------------------------------------------------------------------------


def test_a_call_is_made_and_recorded() -> None:
    toolbox = FakeToolbox(echo=echo)
    outcome = called(toolbox, ECHO)
    assert toolbox.calls == [("echo", {"text": "hi"})]
    assert outcome.result == text_result("hi")
    usage = outcome.usage
    assert (usage.interception_id, usage.provider_response_id) == ("interception", "msg_1")
    assert (usage.provider_tool_call_id, usage.tool, usage.input) == ("call_1", "echo", '{"text":"hi"}')
    assert (usage.server_url, usage.injected, usage.invocation_error) == ("http://fake.test/mcp", True, None)
    assert usage.duration_ms is not None


def test_no_arguments_are_an_empty_object() -> None:
    toolbox = FakeToolbox(echo=echo)
    called(toolbox, ToolCall("c", "bmcp_fake_echo", ""))
    assert toolbox.calls == [("echo", {})]


@pytest.mark.parametrize("arguments", ['{"text', "[]", '"x"', "\ud800"])
def test_arguments_that_are_no_object_reach_no_tool(arguments: str) -> None:
    toolbox = FakeToolbox(echo=echo)
    outcome = called(toolbox, ToolCall("c", "bmcp_fake_echo", arguments))
    assert outcome.result.is_error
    assert "not a JSON object" in text_of(outcome)
    assert outcome.usage.invocation_error == text_of(outcome)
    assert toolbox.calls == []


SCHEMA = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/count"}},
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"n":1}', ""),
        ("{}", "'n' is a required property"),
        ('{"n":0}', "$.n: 0 is less than the minimum of 1"),
        ('{"n":1,"x":2}', "Additional properties"),
    ],
)
def test_arguments_are_checked_against_the_whole_schema(arguments: str, problem: str) -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbox.schemas["echo"] = SCHEMA
    outcome = called(toolbox, ToolCall("c", "bmcp_fake_echo", arguments))
    assert outcome.result.is_error == bool(problem)
    assert problem in text_of(outcome)
    assert len(toolbox.calls) == (0 if problem else 1)


def test_a_schema_elsewhere_is_not_fetched() -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbox.schemas["echo"] = {"type": "object", "properties": {"text": {"$ref": "http://127.0.0.1:9/schema"}}}
    assert "refers to something that is not there" in text_of(called(toolbox, ECHO))
    assert toolbox.calls == []


def test_arguments_that_cannot_be_checked_reach_no_tool() -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbox.schemas["echo"] = {"type": "object", "properties": {"text": {"type": "string"}, "n": {"enum": [1]}}}
    deep = ToolCall("c", "bmcp_fake_echo", '{"n":2,"text":' + "[" * 1000 + "]" * 1000 + "}")
    assert called(toolbox, deep).result.is_error
    assert toolbox.calls == []


def test_integers_of_any_size_reach_the_tool() -> None:
    toolbox = FakeToolbox(echo=echo)
    called(toolbox, ToolCall("c", "bmcp_fake_echo", '{"n":123456789012345678901234567890}'))
    assert toolbox.calls == [("echo", {"n": 123456789012345678901234567890})]


def test_what_goes_wrong_is_told_to_the_model_without_internals() -> None:
    toolbox = FakeToolbox(fails=fails, crashes=crashes)
    no = called(toolbox, ToolCall("c", "bmcp_fake_fails", "{}"))
    assert (no.result.is_error, text_of(no)) == (True, "the server said no")
    bug = called(toolbox, ToolCall("c", "bmcp_fake_crashes", "{}"))
    assert (bug.result.is_error, text_of(bug)) == (True, "the tool failed unexpectedly")


def test_an_error_of_the_tools_own_is_recorded_as_one() -> None:
    toolbox = FakeToolbox(
        told=lambda arguments, context: text_result("no such city", is_error=True),
        shown=lambda arguments, context: ToolResult((Image("image/png", "aGk="),), is_error=True),
    )
    assert called(toolbox, ToolCall("c", "bmcp_fake_told", "{}")).usage.invocation_error == "no such city"
    shown = called(toolbox, ToolCall("c", "bmcp_fake_shown", "{}"))
    assert shown.usage.invocation_error == "the tool reported an error"


def test_the_policy_has_the_last_word() -> None:
    toolbox = FakeToolbox(echo=echo)

    def policy(tool: Tool, arguments: Mapping[str, Any], asking: CallContext) -> str | None:
        if asking.actor == "alice" and arguments["text"] == "crash":
            raise RuntimeError
        return None if arguments["text"] == "please" else "say please"

    toolbelt = Toolbelt([toolbox], Tools(), policy)
    texts = ("please", "hi", "crash")
    outcomes = [called(toolbox, ToolCall("c", "bmcp_fake_echo", f'{{"text":"{t}"}}'), toolbelt) for t in texts]
    assert [text_of(outcome) for outcome in outcomes] == [
        "please",
        "the call is not allowed: say please",
        "the call is not allowed: the policy could not be asked",
    ]
    assert len(toolbox.calls) == 1


def test_a_tool_that_has_gone_meanwhile_is_not_called() -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbelt = belt(toolbox)
    catalogue = asked(toolbelt=toolbelt)
    assert catalogue is not None
    toolbox.functions.clear()
    assert "not available any more" in text_of(toolbelt.call(catalogue, ECHO, context()))


def test_without_time_left_nothing_is_called() -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbelt = belt(toolbox)
    catalogue = asked(toolbelt=toolbelt)
    assert catalogue is not None
    assert "no time left" in text_of(toolbelt.call(catalogue, ECHO, context(deadline=time.monotonic())))
    assert toolbox.calls == []


def test_large_results_are_cut() -> None:
    parts = (Text("é" * 10), Image("image/png", "x" * 10), Text("z"))
    assert bounded(ToolResult(parts), 31).parts == parts
    assert bounded(ToolResult(parts), 25).parts == (parts[0], Text("[cut: 0 of 10 bytes, and 1 more parts]"))
    assert bounded(ToolResult(parts), 5).parts == (Text("éé\n[cut: 4 of 20 bytes, and 2 more parts]"),)
    assert bounded(ToolResult((Text("abc"),), whole="{}" * 9), 5).whole == ""
    assert bounded(ToolResult((Text("abcdef"),)), 5).parts == (Text("abcde\n[cut: 5 of 6 bytes]"),)


def test_toolboxes_live_as_long_as_the_toolbelt() -> None:
    toolbox = FakeToolbox(echo=echo)
    toolbelt = belt(toolbox)
    seen = []
    for act in (toolbelt.start, toolbelt.close):
        act()
        seen.append(toolbox.running)
    assert seen == [True, False]
    assert toolbelt.status() == {"fake": {"tools": 1}}
    assert toolbelt.in_use
    assert not belt().in_use


# --- several calls -----------------------------------------------------------------------------------------------


def calls_of(
    toolbox: FakeToolbox,
    count: int,
    *,
    at_once: int = 8,
    places: threading.BoundedSemaphore = PLACES,
    **settings: Any,
) -> Calls:
    toolbelt = belt(toolbox, **settings)
    catalogue = asked(toolbelt=toolbelt)
    assert catalogue is not None
    name = catalogue.tools[0].wire_name
    made = [ToolCall(f"call_{number}", name, f'{{"text":"{number}"}}') for number in range(count)]
    asker = Asker("alice", "interception", "msg_1", time.monotonic() + 60)
    return Calls(toolbelt, catalogue, made, asker, at_once=at_once, places=places)


def finished(calls: Calls) -> list[Outcome]:
    while not calls.wait(5):
        pass
    return calls.outcomes()


def test_calls_run_at_once_and_come_back_in_their_order() -> None:
    together = threading.Barrier(4)

    def meet(arguments: Mapping[str, Any], asking: CallContext) -> ToolResult:
        together.wait(5)
        return echo(arguments, asking)

    outcomes = finished(calls_of(FakeToolbox(meet=meet), 4))
    assert [text_of(outcome) for outcome in outcomes] == ["0", "1", "2", "3"]
    assert [outcome.call.id for outcome in outcomes] == [f"call_{number}" for number in range(4)]


def test_only_so_many_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def count(arguments: Mapping[str, Any], asking: CallContext) -> ToolResult:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return echo(arguments, asking)

    outcomes = finished(calls_of(FakeToolbox(count=count), 25, at_once=3))
    assert len(outcomes) == 25
    assert most == 3


def test_a_call_that_never_returns_is_given_up_and_the_others_go_on() -> None:
    release, cancelled = threading.Event(), []

    def hang(arguments: Mapping[str, Any], asking: CallContext) -> ToolResult:
        if arguments["text"] == "0":
            release.wait(20)
            cancelled.append(asking.cancelled.is_set())
        return echo(arguments, asking)

    outcomes = finished(calls_of(FakeToolbox(hang=hang), 3, at_once=1, call_timeout=0.1))
    release.set()
    assert [outcome.result.is_error for outcome in outcomes] == [True, False, False]
    assert outcomes[0].usage.invocation_error == "the call timed out"
    while not cancelled:
        time.sleep(0.01)
    assert cancelled == [True]


def test_what_nobody_waits_for_is_abandoned_and_recorded() -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(arguments: Mapping[str, Any], asking: CallContext) -> ToolResult:
        begun.set()
        release.wait(20)
        return echo(arguments, asking)

    toolbox = FakeToolbox(hang=hang)
    calls = calls_of(toolbox, 2, at_once=1)
    assert not calls.wait(0.01)
    assert begun.wait(5)
    outcomes = calls.abandon("the client left")
    release.set()
    assert [outcome.usage.invocation_error for outcome in outcomes] == ["the client left"] * 2
    assert len(toolbox.calls) == 1


def test_threads_that_never_end_do_not_pile_up() -> None:
    release, places = threading.Event(), threading.BoundedSemaphore(1)

    def hang(arguments: Mapping[str, Any], asking: CallContext) -> ToolResult:
        release.wait(20)
        return echo(arguments, asking)

    toolbox = FakeToolbox(hang=hang)
    first = finished(calls_of(toolbox, 2, places=places, call_timeout=0.1))
    later = finished(calls_of(toolbox, 1, places=places))
    release.set()
    assert [outcome.usage.invocation_error for outcome in (*first, *later)] == [
        "the call timed out",
        "too many tool calls are running",
        "too many tool calls are running",
    ]


def test_a_tools_own_timeout_counts_before_the_general_one() -> None:
    clock = FakeClock()
    toolbelt = Toolbelt([FakeToolbox(echo=echo)], Tools(call_timeout=7), clock=clock)
    tool = Tool("bmcp_x", "x", "", {}, "s", timeout=3)
    call = ToolCall("c", "bmcp_x", "{}")
    assert toolbelt.deadline(Catalogue((tool,), {}), call, 9999) == clock.now + 3
    assert toolbelt.deadline(Catalogue((tool,), {}), call, clock.now + 1) == clock.now + 1


# --- prompt caches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [MESSAGES, CHAT_COMPLETIONS, RESPONSES], ids=lambda protocol: protocol.name)
def test_the_same_request_and_catalogue_give_the_same_bytes(protocol: WireProtocol) -> None:
    """Whatever the order in which the toolboxes tell their tools: 1,000 random requests."""
    chance = random.Random(4711)
    toolbox = FakeToolbox(**{f"tool_{number}": echo for number in range(12)})
    toolbelt = belt(toolbox)

    def body_of(request: bytes) -> bytes:
        functions = list(toolbox.functions.items())
        chance.shuffle(functions)
        toolbox.functions = dict(functions)
        payload = protocol.parse(request)
        catalogue = toolbelt.catalogue(payload, protocol.tooling)
        return protocol.tooling.request(payload, catalogue.tools, {}, True).body()

    for _ in range(1000):
        request = random_request(chance, protocol.name)
        first = body_of(request)
        assert first == body_of(request)
        assert b"bmcp_fake_tool_0" in first


def random_request(chance: random.Random, protocol: str) -> bytes:
    words = ["rain", "Zürich", "\u2028", '"', "雨", "x" * 50]

    def value(depth: int) -> Any:
        kinds: list[Callable[[], Any]] = [
            chance.random,
            lambda: chance.randint(0, 2**70),
            lambda: chance.choice(words),
            lambda: None,
        ]
        if depth:
            kinds += [
                lambda: [value(depth - 1) for _ in range(chance.randint(0, 3))],
                lambda: {chance.choice(words): value(depth - 1) for _ in range(chance.randint(0, 3))},
            ]
        return chance.choice(kinds)()

    turns = [{"role": chance.choice(["user", "system"]), "content": chance.choice(words)} for _ in range(3)]
    own = {"name": "Read", "input_schema": value(2)}
    fields = [
        ("input" if protocol == "responses" else "messages", turns),
        ("model", chance.choice(words)),
        ("tools", chance.choice([None, [], [own]])),
        *((f"x_{number}", value(3)) for number in range(chance.randint(0, 4))),
    ]
    chance.shuffle(fields)
    return json.dumps(dict(fields), ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2])).encode()
