"""The loop over rounds, with a scripted provider and real threads for the tools."""

import json
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import pytest

from aibridge.errors import ClientGone, RoundRefused, ToolLoopLimit, Unavailable, UpstreamError
from aibridge.interception import waiting
from aibridge.interception.loop import intercept
from aibridge.interception.memory import ProcessMemory
from aibridge.interception.outcome import judge
from aibridge.interception.tool_rounds import Question, ToolRounds
from aibridge.interception.toolbox import CallContext
from aibridge.interception.tools import Toolbelt
from aibridge.protocols.interceptor import Observation
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.tools import ToolResult
from aibridge.records import PromptUsage, TokenUsage, ToolUsage
from aibridge.settings import Tools
from aibridge.upstream.call import IDLE, Headers, UpstreamResponse
from tests.fakes import FakeToolbox, ScriptedBody, text_result
from tests.protocols.messages_dialogue import QUESTION, READ, Said, call, read, say
from tests.protocols.sdk import anthropic_message

EVENTS: Headers = (("content-type", "text/event-stream"),)
JSON: Headers = (("content-type", "application/json"),)
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'


def look(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
    return text_result("Rain.")


OURS = call("a", "bmcp_fake_look")


def one(number: int, *content: dict[str, Any], stop: str = "tool_use") -> Said:
    return Said(number, content, stop)


class Provider:
    """Answers in order; an exception among the answers is raised."""

    def __init__(self, *answers: UpstreamResponse | Exception) -> None:
        self._answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.called = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def __call__(self, body: bytes) -> UpstreamResponse:
        self.bodies.append(json.loads(body))
        if len(self.bodies) > 1:
            self.called.set()
            self.open.wait(10)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def streamed(said: Said) -> UpstreamResponse:
    return UpstreamResponse(200, EVENTS, ScriptedBody([said.stream()]))


def whole(said: Said) -> UpstreamResponse:
    return UpstreamResponse(200, JSON, ScriptedBody([said.body()]))


def body_of(response: UpstreamResponse) -> ScriptedBody:
    assert isinstance(response.body, ScriptedBody)
    return response.body


class Talk:
    """One request with tools, and all that belongs to it."""

    def __init__(
        self, *answers: UpstreamResponse | Exception, toolbox: FakeToolbox | None = None, **settings: Any
    ) -> None:
        self.toolbox = toolbox or FakeToolbox(look=look)
        self.toolbelt = Toolbelt([self.toolbox], Tools(**settings))
        self.memory = ProcessMemory()
        self.provider = Provider(*answers)
        self.rounds = self._begin()
        self.chunks: Generator[bytes] = intercept(self.rounds)

    def _begin(self) -> ToolRounds:
        payload = MESSAGES.parse(json.dumps({"messages": QUESTION, "tools": [READ]}).encode())
        catalogue = self.toolbelt.catalogue(payload, MESSAGES.tooling)
        request = MESSAGES.tooling.request(payload, catalogue.tools, {}, True)
        question = Question(MESSAGES, payload, request, catalogue, "alice", "interception")
        return ToolRounds(question, self.provider(request.body()), self.provider, self.toolbelt, self.memory)

    def keys(self) -> Sequence[str]:
        """The keys of the answer, once the client has put it into its history."""
        copy = {"role": "assistant", "content": [read("r")]}
        return MESSAGES.tooling.keys(MESSAGES.parse(json.dumps({"messages": [*QUESTION, copy]}).encode()))

    def told(self) -> bytes:
        return b"".join(self.chunks)

    def usages(self) -> list[ToolUsage]:
        return [record for record in self.observed().records if isinstance(record, ToolUsage)]

    def observed(self) -> Observation:
        return self.rounds.observe()


def test_a_call_is_run_and_the_provider_asked_again() -> None:
    talk = Talk(streamed(one(1, say("I look."), OURS)), streamed(one(2, say("Rain."), stop="end_turn")))
    message = anthropic_message(talk.told())
    assert [block["text"] for block in message["content"]] == ["I look.", "Rain."]
    assert talk.toolbox.calls == [("look", {})]
    assert talk.provider.bodies[1]["messages"][2]["content"][0]["content"] == [say("Rain.")]
    seen = talk.observed()
    assert (seen.finished, seen.rounds, seen.error) == (True, 2, None)
    assert [record.prompt for record in seen.records if isinstance(record, PromptUsage)] == [
        "What is the weather?"
    ]
    tokens = [record for record in seen.records if isinstance(record, TokenUsage)]
    assert [(usage.provider_response_id, usage.input_tokens) for usage in tokens] == [("msg_1", 10), ("msg_2", 20)]
    (usage,) = talk.usages()
    assert (usage.tool, usage.injected, usage.provider_tool_call_id) == ("look", True, "a")
    assert (usage.provider_response_id, usage.invocation_error) == ("msg_1", None)


def test_every_body_is_closed() -> None:
    answers = [streamed(one(1, OURS)), streamed(one(2, say("Rain."), stop="end_turn"))]
    Talk(*answers).told()
    assert [body_of(answer).closed for answer in answers] == [1, 1]


def test_a_blocking_client_gets_one_body() -> None:
    talk = Talk(whole(one(1, say("I look."), OURS)), whole(one(2, say("Rain."), stop="end_turn")))
    assert not talk.rounds.streamed
    assert [block["text"] for block in json.loads(talk.told())["content"]] == ["I look.", "Rain."]


def test_without_calls_of_ours_there_is_one_round() -> None:
    said = one(1, say("Rain."), read("r"))
    talk = Talk(streamed(said))
    assert talk.told() == said.stream()
    assert [(usage.tool, usage.injected) for usage in talk.usages()] == [("Read", False)]
    assert not talk.rounds.must_speak


def test_a_mixed_turn_hands_the_client_its_calls_and_is_remembered() -> None:
    talk = Talk(streamed(one(1, OURS, read("r"))))
    message = anthropic_message(talk.told())
    assert [block["id"] for block in message["content"]] == ["r"]
    assert message["stop_reason"] == "tool_use"
    assert [(usage.tool, usage.injected) for usage in talk.usages()] == [("Read", False), ("look", True)]
    assert talk.memory.recall("alice", talk.keys())
    assert not talk.memory.recall("bob", talk.keys())
    assert len(talk.provider.bodies) == 1


def test_a_hidden_turn_that_is_too_large_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibridge.interception.tool_rounds.LARGEST_TURN", 10)
    talk = Talk(streamed(one(1, OURS, read("r"))))
    talk.told()
    assert not talk.memory.recall("alice", talk.keys())


def silence(chunks: Iterable[bytes], until: Callable[[], bool]) -> int:
    """How many silent moments pass until that holds."""
    for count, chunk in enumerate(chunks):
        assert chunk == IDLE
        if until():
            return count
    raise AssertionError("the answer ended")


def test_while_a_tool_runs_there_are_signs_of_life() -> None:
    release = threading.Event()

    def slow(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        release.wait(10)
        return text_result("late")

    answers = (streamed(one(1, OURS)), streamed(one(2, say("Rain."), stop="end_turn")))
    talk = Talk(*answers, toolbox=FakeToolbox(look=slow))
    assert b"message_start" in next(talk.chunks)
    assert next(talk.chunks) == IDLE
    assert talk.rounds.must_speak
    release.set()
    assert b"message_stop" in talk.told()


def test_while_the_provider_thinks_there_are_signs_of_life() -> None:
    talk = Talk(streamed(one(1, OURS)), streamed(one(2, say("Rain."), stop="end_turn")))
    talk.provider.open.clear()
    next(talk.chunks)
    silence(talk.chunks, talk.provider.called.is_set)
    assert next(talk.chunks) == IDLE
    talk.provider.open.set()
    assert b"message_stop" in talk.told()


def test_a_client_that_leaves_while_a_tool_runs() -> None:
    cancelled, running = threading.Event(), threading.Event()

    def slow(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        running.set()
        assert context.cancelled.wait(10)
        cancelled.set()
        return text_result("late")

    talk = Talk(streamed(one(1, OURS)), toolbox=FakeToolbox(look=slow))
    next(talk.chunks)
    silence(talk.chunks, running.is_set)
    talk.chunks.close()
    assert cancelled.wait(10)
    assert [usage.invocation_error for usage in talk.usages()] == ["the client left"]
    assert judge(talk.observed(), None, cancelled=True, sent=True).status == "cancelled"
    assert len(talk.provider.bodies) == 1


def test_a_stop_while_a_tool_runs_abandons_it_and_says_why() -> None:
    cancelled, running = threading.Event(), threading.Event()

    def slow(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        running.set()
        assert context.cancelled.wait(10)
        cancelled.set()
        return text_result("late")

    talk = Talk(streamed(one(1, OURS)), toolbox=FakeToolbox(look=slow))
    next(talk.chunks)
    silence(talk.chunks, running.is_set)
    with pytest.raises(Unavailable):
        talk.chunks.throw(Unavailable("we stop"))
    assert cancelled.wait(10)
    assert [usage.invocation_error for usage in talk.usages()] == ["we stop"]


def test_a_stop_while_the_provider_thinks() -> None:
    late = streamed(one(2, say("Rain."), stop="end_turn"))
    talk = Talk(streamed(one(1, OURS)), late)
    talk.provider.open.clear()
    next(talk.chunks)
    silence(talk.chunks, talk.provider.called.is_set)
    with pytest.raises(Unavailable):
        talk.chunks.throw(Unavailable("we stop"))
    talk.provider.open.set()
    while not body_of(late).closed:
        threading.Event().wait(0.01)


def test_a_client_that_leaves_while_the_provider_thinks() -> None:
    """The answer that comes too late is closed."""
    late = streamed(one(2, say("Rain."), stop="end_turn"))
    talk = Talk(streamed(one(1, OURS)), late)
    talk.provider.open.clear()
    next(talk.chunks)
    silence(talk.chunks, talk.provider.called.is_set)
    talk.chunks.close()
    talk.provider.open.set()
    while not body_of(late).closed:
        threading.Event().wait(0.01)
    assert not talk.observed().finished
    assert [usage.invocation_error for usage in talk.usages()] == [None]


def test_a_provider_that_fails_late_for_nobody() -> None:
    talk = Talk(streamed(one(1, OURS)), ClientGone())
    talk.provider.open.clear()
    next(talk.chunks)
    silence(talk.chunks, talk.provider.called.is_set)
    talk.chunks.close()
    talk.provider.open.set()


def test_a_later_round_that_cannot_be_asked_fails_the_answer() -> None:
    talk = Talk(streamed(one(1, OURS)), UpstreamError("nobody there"))
    with pytest.raises(UpstreamError, match="nobody there"):
        talk.told()
    assert not talk.observed().finished


def test_a_time_out_of_the_provider_is_no_silent_moment() -> None:
    talk = Talk(streamed(one(1, OURS)), TimeoutError("the provider's own"))
    with pytest.raises(TimeoutError, match="the provider's own"):
        talk.told()


def test_a_refused_later_round_of_a_stream() -> None:
    busy = UpstreamResponse(529, JSON, ScriptedBody([OVERLOADED[:9], OVERLOADED[9:]]))
    talk = Talk(streamed(one(1, say("I look."), OURS)), busy)
    with pytest.raises(RoundRefused, match="the provider answered 529: busy") as raised:
        talk.told()
    verdict = judge(talk.observed(), raised.value, cancelled=False, sent=True)
    assert (verdict.status, verdict.error_type, verdict.failure) == ("failed", "overloaded", raised.value)
    assert body_of(busy).closed == 1


def test_a_refused_later_round_of_a_body_is_the_answer() -> None:
    busy = UpstreamResponse(529, JSON, ScriptedBody([OVERLOADED]))
    talk = Talk(whole(one(1, say("I look."), OURS)), busy)
    assert talk.told() == OVERLOADED
    assert talk.rounds.response.status == 529
    verdict = judge(talk.observed(), None, cancelled=False)
    assert (verdict.status, verdict.error_type, verdict.failure) == ("failed", "overloaded", None)


def test_a_round_in_another_form_fails_the_answer() -> None:
    odd = whole(one(2, say("Rain."), stop="end_turn"))
    talk = Talk(streamed(one(1, OURS)), odd)
    with pytest.raises(UpstreamError, match="changed its form"):
        talk.told()
    assert body_of(odd).closed == 1


def test_a_later_round_that_is_no_answer_fails() -> None:
    nothing = UpstreamResponse(200, JSON, ScriptedBody([b"{}"]))
    with pytest.raises(UpstreamError, match="makes no sense"):
        Talk(whole(one(1, say("I look."), OURS)), nothing).told()


def test_an_answer_that_cannot_be_read_fails() -> None:
    packed = UpstreamResponse(200, (*JSON, ("content-encoding", "br")), ScriptedBody([b"\x00"]))
    with pytest.raises(UpstreamError, match="content encoding"):
        Talk(packed)
    assert body_of(packed).closed == 1


def test_a_round_that_breaks_off_runs_nothing() -> None:
    cut = UpstreamResponse(200, EVENTS, ScriptedBody([one(1, say("x"), OURS).stream()[:-80]]))
    talk = Talk(cut)
    talk.told()
    assert talk.toolbox.calls == []
    assert not talk.observed().finished
    assert [(usage.tool, usage.injected, usage.invocation_error) for usage in talk.usages()] == [
        ("look", True, "not run: the turn was not whole")
    ]


def test_a_turn_cut_at_max_tokens_ends_there() -> None:
    talk = Talk(streamed(one(1, say("I look."), OURS, stop="max_tokens")))
    message = anthropic_message(talk.told())
    assert (message["stop_reason"], len(message["content"])) == ("max_tokens", 1)
    assert talk.observed().finished
    assert talk.usages()[0].invocation_error == "not run: the turn was not whole"


def test_a_model_that_calls_for_ever() -> None:
    rounds = [streamed(one(number, say(str(number)), OURS)) for number in range(1, 5)]
    talk = Talk(*rounds, max_rounds=3)
    message = anthropic_message(talk.told())
    assert [block["text"] for block in message["content"]] == ["1", "2", "3"]
    assert message["stop_reason"] == "end_turn"
    assert len(talk.toolbox.calls) == 2
    assert [tool["name"] for tool in talk.provider.bodies[2]["tools"]] == ["Read"]
    unrun = "not run: no further round was allowed"
    assert [usage.invocation_error for usage in talk.usages()] == [None, None, unrun]
    assert talk.observed().finished


def test_a_model_that_only_calls_is_an_error_for_a_blocking_client() -> None:
    talk = Talk(*[whole(one(number, OURS)) for number in (1, 2)], max_rounds=2)
    with pytest.raises(ToolLoopLimit):
        talk.told()


def test_the_time_of_the_whole_loop_is_limited() -> None:
    """When it is over the model is asked to conclude."""
    talk = Talk(streamed(one(1, OURS)), streamed(one(2, say("Sorry."), stop="end_turn")), loop_timeout=0.000_001)
    assert b"message_stop" in talk.told()
    assert talk.toolbox.calls == []
    assert [tool["name"] for tool in talk.provider.bodies[1]["tools"]] == ["Read"]
    assert talk.usages()[0].invocation_error == "there is no time left for this call"


def test_an_answer_that_is_too_large_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibridge.interception.tool_rounds.LARGEST_ROUND", 100)
    with pytest.raises(UpstreamError, match="too large"):
        Talk(whole(one(1, say("Rain."), stop="end_turn"))).told()


def test_a_background_function_may_end_just_when_nobody_looks() -> None:
    """The time is over and the result there, at once: a matter of luck, so it is tried often."""

    def brief() -> str:
        threading.Event().wait(waiting.MOMENT / 100)
        return "done"

    for _ in range(20):
        assert result_of(waiting.in_background(brief, lambda _: None)) == "done"


def result_of(running: Generator[bytes, None, str]) -> str:
    while True:
        try:
            assert next(running) == IDLE
        except StopIteration as ended:
            return str(ended.value)
