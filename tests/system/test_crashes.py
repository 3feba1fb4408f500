"""A failing store and kill -9: no answer and no record is lost (behaviour.md 2.6, 6.6)."""

import os
import signal
from contextlib import closing

import pytest

from tests.fake_provider import Reply, Step
from tests.fake_provider.conversations import message_start, request_bytes, text, text_block, tool, user
from tests.system.client import eventually
from tests.system.conftest import Gateways
from tests.system.gateway import Gateway, Setup

pytestmark = pytest.mark.system

OPENING = (message_start("msg_crash", {"input_tokens": 1234, "output_tokens": 1}), *text_block(0, "so far")[:2])
REQUEST = request_bytes(user("hi"), stream=True)


# --- the store ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])
def test_an_answer_outlives_its_store(gateway: Gateway, actor: str, stream: bool) -> None:
    """Its records wait in the spool, readiness tells of it, and they are there once the store is back."""
    conversation = tool()
    hold = gateway.provider.hold()
    gateway.provider.reply(conversation.reply(stream=stream).but(before=hold))

    with gateway.post(conversation.request(stream=stream), [("X-User-ID", actor)]) as answer:
        gateway.provider.whole_request()
        with gateway.without_table("token_usages"):
            hold.set()
            assert answer.read().ended == "clean"
            assert bytes(answer.body) == conversation.answer(stream=stream)
            with gateway.get("/readyz") as readiness:
                readiness.read()

    assert readiness.status != 200 or b"degraded" in readiness.body
    has_all_of_it(gateway, actor)
    eventually(gateway.is_ready)


def test_an_answer_outlives_a_locked_store(gateway: Gateway, actor: str) -> None:
    conversation = tool()
    hold = gateway.provider.hold()
    gateway.provider.reply(conversation.reply(stream=True).but(before=hold))

    with gateway.post(conversation.request(stream=True), [("X-User-ID", actor)]) as answer:
        gateway.provider.whole_request()
        with gateway.locked_database():
            hold.set()
            assert answer.read().ended == "clean"
            assert answer.without_pings == conversation.stream

    has_all_of_it(gateway, actor)
    eventually(gateway.is_ready)


def has_all_of_it(gateway: Gateway, actor: str) -> None:
    """Every row of `tool()`, once."""
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "completed"
    assert [row["output_tokens"] for row in recorded.tokens] == [60]
    assert [row["tool"] for row in recorded.tools] == ["Read"]
    assert len(recorded.prompts) == 1


def test_an_interception_that_cannot_be_recorded(gateway: Gateway) -> None:
    with gateway.without_table("interceptions"), gateway.post(REQUEST) as answer:
        answer.read()

    assert answer.status == 503
    assert answer.error()[0] == "overloaded_error"
    assert int(answer.header("retry-after") or 0) >= 1
    assert gateway.provider.received == []
    gateway.provider.reply(text().reply(stream=True))
    eventually(gateway.is_ready)
    with gateway.post(REQUEST) as answer:
        assert answer.read().status == 200


# --- a stop ------------------------------------------------------------------------------------------------------


def test_a_client_that_reads_nothing_more_is_left_in_the_end(
    gateways: Gateways, actor: str, worker_class: str
) -> None:
    if worker_class == "gevent":
        pytest.skip("what waits there can be ended from outside, and gunicorn does so")
    gateway = gateways.own(Setup(environment=(("AIBRIDGE_SERVER_DRAIN_TIMEOUT", "0.1"),))).start()
    more = b"event: x\ndata: " + b"y" * 100_000 + b"\n\n"
    gateway.provider.reply(Reply.sse((*OPENING, *[more] * 400)))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(more)

        assert gateway.stop() == 0

    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] in ("cancelled", "failed")  # whichever of the two ends it is told of
    assert [(row["input_tokens"], row["estimated"]) for row in recorded.tokens] == [(1234, 1)]


# --- kill -9 -----------------------------------------------------------------------------------------------------


def test_spooled_records_survive_a_kill(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.reply(text().reply(stream=True).but(before=hold))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        gateway.provider.whole_request()
        with gateway.without_table("token_usages"):
            hold.set()
            assert answer.read().ended == "clean"
            gateway.kill()

    gateway.start()

    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "completed"
    assert [row["output_tokens"] for row in recorded.tokens] == [17]
    assert len(recorded.prompts) == 1


def test_nothing_stays_open_after_a_kill(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own().start()
    gateway.provider.reply(text().reply(stream=True), Reply.sse((*OPENING, gateway.provider.hold())))
    with gateway.post(REQUEST) as finished:
        finished.read()
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        gateway.kill()

    gateway.start()

    whole = gateway.recorded(finished.interception_id)
    assert whole.interception["status"] == "completed"
    assert [row["output_tokens"] for row in whole.tokens] == [17]
    assert gateway.recorded_for(actor).interception["status"] == "interrupted"


def test_a_killed_worker_leaves_nothing_open_and_takes_nobody_with_it(gateways: Gateways, actor: str) -> None:
    """gunicorn starts another worker in its place, and that one ends what the dead one left."""
    gateway = gateways.own(Setup(environment=(("WEB_CONCURRENCY", "2"),))).start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *text().events[-2:])))
    answers = [gateway.post(REQUEST, [("X-User-ID", f"{actor}-{number}")]) for number in range(8)]
    for answer in answers:
        answer.read_until(OPENING[-1])
    one, *_ = gateway.rows("interceptions")  # perhaps all of them are with one worker
    (victim,) = gateway.rows("workers", id=one["worker_id"])

    os.kill(victim["pid"], signal.SIGKILL)
    dead = eventually(lambda: [row for row in gateway.rows("interceptions") if row["ended_at"]])
    hold.set()
    cut = [answer for answer in answers if answer.read().ended == "cut"]

    assert {row["status"] for row in dead} == {"interrupted"}
    assert {row["id"] for row in dead} == {answer.interception_id for answer in cut}
    living = [row for row in gateway.rows("interceptions") if row["id"] not in {row["id"] for row in dead}]
    assert [row["status"] for row in living] == ["completed"] * (8 - len(dead))


def test_a_killed_master_cuts_no_stream_and_keeps_nobody_from_starting_anew(
    gateways: Gateways, actor: str
) -> None:
    gateway = gateways.own().start()
    conversation, hold = text(), gateway.provider.hold()
    halves: tuple[Step, ...] = (*conversation.events[:2], hold, *conversation.events[2:])
    gateway.provider.reply(Reply.sse(halves))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(conversation.events[1])
        gateway.signal(signal.SIGKILL)
        gateway.wait()

        gateway.start()

        hold.set()
        assert answer.read().ended == "clean"
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "completed"
    assert [row["output_tokens"] for row in recorded.tokens] == [17]


def test_a_worker_that_was_only_stopped_has_the_last_word(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*OPENING, hold, *text().events[-2:])))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        (worker,) = gateway.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        with closing(gateway.connect()) as connection:  # as if it had been silent for long, on another machine
            connection.execute("UPDATE aibridge_workers SET seen_at = '2020-01-01 00:00:00', place = ''")
        shared = (("DATABASE_URL", f"sqlite:///{gateway.database}"),)
        gateways.own(Setup(environment=shared)).start()
        eventually(lambda: gateway.rows("interceptions", initiator_id=actor, status="interrupted"))
        os.kill(worker, signal.SIGCONT)
        hold.set()
        answer.read()

    assert answer.ended == "clean"
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "completed"
    assert len(recorded.tokens) == 1
    assert len(eventually(lambda: len(gateway.rows("workers")) == 2 and gateway.rows("workers"))) == 2


def test_starting_a_second_gateway_interrupts_nobody(gateways: Gateways, actor: str) -> None:
    """The sweeper ends what dead workers left, not what another process is at."""
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*OPENING, hold, *text().events[-2:])))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        shared = (("DATABASE_URL", f"sqlite:///{gateway.database}"),)
        gateways.own(Setup(environment=shared)).start()
        (row,) = gateway.rows("interceptions", initiator_id=actor)
        hold.set()
        answer.read()

    assert row["status"] == "open"
    assert answer.ended == "clean"
    assert gateway.recorded_for(actor).interception["status"] == "completed"
