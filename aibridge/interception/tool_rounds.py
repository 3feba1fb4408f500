"""The rounds of a request with injected tools.

After each round: the calls of our tools are run, their results go into the next round's request. Text, thinking
and the client's own calls reach the client while they come; an answer that ends with calls of the client's keeps
what the client did not see for its next request. In the last round that is allowed the model cannot call our
tools; what it calls nevertheless is not run, since nobody would tell it the result.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import structlog

from aibridge.errors import GatewayError, RoundRefused, ToolLoopLimit, UpstreamError
from aibridge.interception.calls import Asker, Calls
from aibridge.interception.memory import LARGEST_TURN, Memory, size
from aibridge.interception.tools import Catalogue, Outcome, Toolbelt
from aibridge.interception.waiting import MOMENT, in_background
from aibridge.protocols.interceptor import Interceptor, Observation, Observed, Payload, WireProtocol
from aibridge.protocols.rounds import HiddenTurn, Round, ToolRequest, Turn
from aibridge.protocols.tools import ToolCall
from aibridge.records import ToolUsage
from aibridge.upstream.call import IDLE, UpstreamResponse

LARGEST_ROUND = 128 * 1024 * 1024  # bytes of one answer of the provider's

_log = structlog.get_logger("aibridge.tools")

Ask = Callable[[bytes], UpstreamResponse]


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is to be answered with tools: what the client asked, on whose behalf, what is offered."""

    protocol: WireProtocol
    payload: Payload
    request: ToolRequest
    catalogue: Catalogue
    actor: str
    interception_id: str


class ToolRounds:
    """`loop.Rounds` for a request with tools. `response` is the provider's answer to the first round's body, `ask`
    sends the body of a further one and returns once the status is known."""

    def __init__(
        self,
        question: Question,
        response: UpstreamResponse,
        ask: Ask,
        toolbelt: Toolbelt,
        memory: Memory,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.must_speak = False
        self.streamed = response.is_event_stream
        self.response = response
        self._question = question
        self._ask = ask
        self._toolbelt = toolbelt
        self._memory = memory
        self._limits = toolbelt.settings
        self._clock = clock
        self._latest = clock() + toolbelt.settings.loop_timeout
        self._composer = question.request.compose(event_stream=self.streamed)
        self._size = 0  # of what the provider has sent in this round
        self._observers = [self._observer(question.payload, response)]
        self._past: list[Round] = []
        self._usages: list[list[ToolUsage]] = [[]]  # of each round's calls
        self._mixed = False  # the answer ends with calls of the client's beside ours
        self._last = False  # no further round is allowed
        self._unreported = False  # the model called our tools where they could not be run any more
        self._refused = False  # the provider refused a later round, and its refusal is the answer

    def feed(self, chunk: bytes) -> bytes:
        self._size += len(chunk)
        if self._size > LARGEST_ROUND:
            raise UpstreamError("the provider's answer is too large")
        self._observers[-1].feed(chunk)
        return chunk if self._refused else self._composer.feed(chunk)

    def another(self) -> Generator[bytes, None, bool]:
        turn = Turn() if self._refused else self._composer.turn()
        if not turn.calls or turn.cut or self._last:
            self._unreported = bool(turn.calls) and self._last
            return False
        self.must_speak = True
        outcomes = yield from self._called(turn.calls)
        self._past.append(self._composer.round([(outcome.call, outcome.result) for outcome in outcomes]))
        self._mixed = turn.mixed
        if turn.mixed:
            return False
        self._last = len(self._past) + 1 >= self._limits.max_rounds or self._clock() >= self._latest
        yield from self._asked_again()
        return True

    def finish(self) -> bytes:
        if self._refused:
            return b""
        if self._unreported and self._composer.empty and not self.streamed:
            raise ToolLoopLimit("the model kept calling tools until no further round was allowed")
        if self._past and not self._composer.response_id:
            raise UpstreamError("the provider's answer to a later round of the tool loop makes no sense")
        self._remember()
        return self._composer.finish()

    def observe(self) -> Observation:
        """All rounds as one answer: the last one's end, everybody's records, each call of our tools once."""
        seen = [observer.observe() for observer in self._observers]
        return Observation(
            records=tuple(chain.from_iterable(map(self._records, seen, self._usages))),
            finished=seen[-1].finished and (self._refused or self._composer.ended),
            error=seen[-1].error,
            notes=tuple(note for each in seen for note in each.notes),
            rounds=len(seen),
        )

    def _records(self, seen: Observation, usages: Sequence[ToolUsage]) -> Iterator[Observed]:
        """A round's records; of the calls of our tools those that were run have told themselves."""
        told = {each.provider_tool_call_id: each for each in seen.records if isinstance(each, ToolUsage)}
        run = {usage.provider_tool_call_id for usage in usages}
        for record in seen.records:
            if not isinstance(record, ToolUsage) or record.metadata or record.tool not in self._question.catalogue:
                yield record
            elif record.provider_tool_call_id not in run:
                yield self._not_run(record)
        for usage in usages:
            known = told.get(usage.provider_tool_call_id)
            yield replace(usage, provider_item_id=known.provider_item_id) if known else usage

    def _called(self, calls: Sequence[ToolCall]) -> Generator[bytes, None, list[Outcome]]:
        question = self._question
        asker = Asker(question.actor, question.interception_id, self._composer.response_id, self._latest)
        at_once = self._limits.max_parallel_calls
        running = Calls(self._toolbelt, question.catalogue, calls, asker, at_once=at_once, clock=self._clock)
        outcomes: list[Outcome] = []
        try:
            while not running.wait(MOMENT):
                yield IDLE
            outcomes = running.outcomes()
        except GeneratorExit:
            outcomes = running.abandon("the client left")
            raise
        except GatewayError as error:
            outcomes = running.abandon(error.message)
            raise
        finally:
            self._usages[-1] = [outcome.usage for outcome in outcomes]
        return outcomes

    def _asked_again(self) -> Generator[bytes]:
        body = self._question.request.body(self._past, last=self._last)
        response = yield from in_background(lambda: self._ask(body), lambda late: late.body.close())
        observer = self._observer(replace(self._question.payload, body=body, prompt=None), response)
        self._observers.append(observer)
        self._usages.append([])
        if response.status >= 400 and self.streamed:
            with closing(response.body):
                for chunk in response.body:
                    observer.feed(chunk)
                    yield IDLE
            reason = observer.observe().error
            raise RoundRefused(f"the provider answered {response.status}: {reason.message if reason else ''}")
        self._refused = response.status >= 400
        if not self._refused and response.is_event_stream != self.streamed:
            response.body.close()
            raise UpstreamError("the provider's answer changed its form in a later round of the tool loop")
        self.response = response
        self._size = 0

    def _observer(self, payload: Payload, response: UpstreamResponse) -> Interceptor:
        """Raises UpstreamError for an answer that cannot be read: our tools' calls in it would reach the
        client."""
        if response.is_encoded:
            response.body.close()
            raise UpstreamError("the provider's answer came in a content encoding that was not asked for")
        question = self._question
        return question.protocol.intercept(payload, question.interception_id, response.status, response.streams)

    def _not_run(self, record: ToolUsage) -> ToolUsage:
        tool = self._question.catalogue.tool(record.tool)
        reason = "not run: " + ("no further round was allowed" if self._unreported else "the turn was not whole")
        return replace(record, tool=tool.name, server_url=tool.server, injected=True, invocation_error=reason)

    def _remember(self) -> None:
        """Before the client can read the end of the answer, so that its next request finds it."""
        if not self._past:
            return
        turn = HiddenTurn(tuple(self._past), self._mixed, self._composer.response_id)
        if size(turn) > LARGEST_TURN:
            _log.warning(
                "a hidden turn is too large to be remembered", interception_id=self._question.interception_id
            )
            return
        self._memory.remember(self._question.actor, self._composer.keys(), turn)
