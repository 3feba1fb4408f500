"""No bytes make a machine raise, nor lose what it should give on; how they are cut makes no difference."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import InvalidRequest
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.editing import ObjectText, elements
from aibridge.protocols.interceptor import Payload, WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.reading import parse
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.rounds import HiddenTurn
from aibridge.protocols.sse import Border, Decoder, Splitter, encode
from tests.conversations import conversations
from tests.mutations import mutated, pieces
from tests.protocols import test_chat_tools, test_messages_tools, test_responses_tools
from tests.protocols.playing import TOOLS, Played, play

pytestmark = pytest.mark.fuzz

PROTOCOLS = (MESSAGES, CHAT_COMPLETIONS, RESPONSES)
CONVERSATIONS = {protocol: conversations(protocol.name) for protocol in PROTOCOLS}
STREAMS = [conversation.stream for each in CONVERSATIONS.values() for conversation in each]
BODIES = {
    protocol: [each.blocking for each in CONVERSATIONS[protocol] if each.blocking is not None]
    for protocol in PROTOCOLS
}
DIALOGUES: dict[WireProtocol, Any] = {
    MESSAGES: test_messages_tools,
    CHAT_COMPLETIONS: test_chat_tools,
    RESPONSES: test_responses_tools,
}


def dialogue(protocol: WireProtocol, name: str, *, stream: bool) -> list[bytes]:
    """What the provider says in it, round by round."""
    return [each.stream() if stream else each.body() for each in DIALOGUES[protocol].said(name)]


def spoken(protocol: WireProtocol, *, stream: bool) -> list[bytes]:
    """Every round of every dialogue."""
    return list(chain(*(dialogue(protocol, name, stream=stream) for name in DIALOGUES[protocol].DIALOGUES)))


# --- server-sent events ------------------------------------------------------------------------------------------


@given(st.data())
def test_the_decoder_reads_the_same_however_it_comes(data: st.DataObject) -> None:
    stream = data.draw(mutated(STREAMS))
    cut, small = Decoder(), Decoder(limit=40)
    arriving = data.draw(pieces(stream))
    assert [event for piece in arriving for event in cut.feed(piece)] == list(Decoder().feed(stream))
    assert all(len(event.data) <= 40 for piece in arriving for event in small.feed(piece))


@given(st.data())
def test_the_splitter_loses_nothing(data: st.DataObject) -> None:
    stream = data.draw(mutated(STREAMS))
    splitter = Splitter(data.draw(st.sampled_from([10, 300, 16 * 1024 * 1024])))
    out = [event for piece in data.draw(pieces(stream)) for event in splitter.feed(piece)]
    assert b"".join(out) + splitter.rest() == stream


@given(st.data())
def test_after_whatever_was_sent_an_event_of_ours_is_understood(data: st.DataObject) -> None:
    stream = data.draw(mutated(STREAMS))
    border = Border()
    for piece in data.draw(pieces(stream)):
        border.sent(piece)
    *_, last = Decoder().feed(stream + border.closing() + encode("error", b"{}"))
    assert (last.name, last.data) == ("error", b"{}")


# --- answers without tools ---------------------------------------------------------------------------------------


@given(st.data())
def test_a_relay_gives_on_every_byte_and_observes_whatever_it_was(data: st.DataObject) -> None:
    protocol = data.draw(st.sampled_from(PROTOCOLS))
    streamed = data.draw(st.booleans())
    status = data.draw(st.sampled_from([200, 200, 400, 529]))
    conversation = data.draw(st.sampled_from(CONVERSATIONS[protocol]))
    answer = data.draw(mutated([conversation.stream] if streamed else BODIES[protocol]))
    interceptor = protocol.intercept(protocol.parse(conversation.request), "i", status, streamed)
    arriving = data.draw(pieces(answer))
    assert [interceptor.feed(piece) for piece in arriving] == arriving
    assert interceptor.finish() == b""
    interceptor.observe()


@given(st.data())
def test_hiding_the_usage_takes_out_nothing_else(data: st.DataObject) -> None:
    assert CHAT_COMPLETIONS.metering
    stream = data.draw(mutated([each.stream for each in CONVERSATIONS[CHAT_COMPLETIONS]]))
    payload = Payload(b"{}", {})
    hiding = CHAT_COMPLETIONS.metering.hide(CHAT_COMPLETIONS.intercept(payload, "i", 200, True))
    shown = b"".join(map(hiding.feed, data.draw(pieces(stream)))) + hiding.finish()
    hiding.observe()
    hidden = [event for event in _events(stream) if event not in shown]
    assert len(shown) >= len(stream) - sum(map(len, _events(stream)))
    assert all(b'"usage"' in event for event in hidden)


def _events(stream: bytes) -> list[bytes]:
    return Splitter().feed(stream)


# --- answers with tools ------------------------------------------------------------------------------------------


def answered(protocol: WireProtocol, answers: Sequence[bytes], *, stream: bool, **options: Any) -> Played:
    return play(protocol, DIALOGUES[protocol].request(), answers, stream=stream, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda each: each.name)
@given(data=st.data())
def test_a_composer_survives_any_rounds_however_they_come(protocol: WireProtocol, data: st.DataObject) -> None:
    stream = data.draw(st.booleans())
    rounds = st.lists(mutated(spoken(protocol, stream=stream)), min_size=1, max_size=3)
    answers = data.draw(rounds)
    whole = answered(protocol, answers, stream=stream)
    cut = answered(protocol, answers, stream=stream, cut=lambda answer: data.draw(pieces(answer)))
    assert (cut.client, cut.bodies, cut.turns) == (whole.client, whole.bodies, whole.turns)
    assert all(isinstance(question, dict) for question in whole.questions)
    whole.remembered()


# Responses echoes the request's tools, of which it must never show ours.
@pytest.mark.parametrize("protocol", [MESSAGES, CHAT_COMPLETIONS], ids=lambda each: each.name)
@given(data=st.data())
def test_a_composer_with_nothing_to_hide_gives_on_every_whole_event(
    protocol: WireProtocol, data: st.DataObject
) -> None:
    stream = data.draw(st.booleans())
    originals = dialogue(protocol, "nothing of ours", stream=stream)
    answer = data.draw(mutated([*originals, *([] if stream else BODIES[protocol])]))
    done = answered(protocol, [answer], stream=stream, cut=lambda answer: data.draw(pieces(answer)))
    assert answer.startswith(done.client)
    half_an_event = answer[len(done.client) :]  # of a stream that died; the error event follows
    assert stream or not half_an_event
    assert not Splitter().feed(half_an_event)


# --- requests ----------------------------------------------------------------------------------------------------


@cache
def hidden_turns(protocol: WireProtocol) -> list[HiddenTurn]:
    names = DIALOGUES[protocol].DIALOGUES
    played = (answered(protocol, dialogue(protocol, name, stream=True), stream=True).hidden for name in names)
    return [turn for turn in played if turn is not None]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda each: each.name)
@given(data=st.data())
def test_a_request_gets_tools_and_hidden_turns_or_is_left_alone(
    protocol: WireProtocol, data: st.DataObject
) -> None:
    """What can be edited once can be edited in every round."""
    originals = [DIALOGUES[protocol].request(), *(each.request for each in CONVERSATIONS[protocol])]
    body = data.draw(mutated(originals))
    try:
        payload = protocol.parse(body)
    except InvalidRequest:
        return
    tooling, turns = protocol.tooling, hidden_turns(protocol)
    recalled = {key: data.draw(st.sampled_from(turns)) for key in tooling.keys(payload)}
    tooling.client_tools(payload)
    tooling.declined(payload)
    tooling.unsupported(payload)
    if protocol.metering is not None:
        protocol.metering.ask(payload)
    try:
        request = tooling.request(payload, TOOLS, recalled, data.draw(st.booleans()))
    except ValueError:
        return
    for past, last in (((), False), (turns[0].rounds, False), (turns[1].rounds, True)):
        assert isinstance(parse(request.body(past, last=last)), dict)


@given(st.data())
def test_a_text_that_is_edited_without_edits_stays_as_it_is(data: st.DataObject) -> None:
    text = data.draw(mutated([*chain(*BODIES.values()), b"[1, {}]", b'{"a": 1, "a": [2]}']))
    with suppress(ValueError):
        assert ObjectText(text).edited() == text
    with suppress(ValueError):
        assert all(element in text for element in elements(text))
