"""Places: who gets one, who is refused, and that none is lost."""

import random
import threading

import pytest
from structlog.testing import capture_logs

from aibridge.errors import RateLimited, Unavailable
from aibridge.interception.admission import LOGGED, Admission, Place
from aibridge.interception.rates import Window
from tests.fakes import FakeClock


def test_without_limits_everybody_gets_a_place() -> None:
    admission = Admission()
    places = [admission.enter() for _ in range(1000)]
    for place in places:
        place.claim("alice")
    assert (admission.taken, admission.actors) == (1000, 1)
    for place in places:
        place.leave()
    assert (admission.taken, admission.actors) == (0, 0)


def test_when_all_places_are_taken_the_next_is_told_to_come_later() -> None:
    admission = Admission(capacity=2)
    first, _ = admission.enter(), admission.enter()
    with pytest.raises(Unavailable) as refusal:
        admission.enter()
    assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
    first.leave()
    admission.enter()
    assert admission.taken == 2


def test_who_needs_no_thread_any_more_leaves_it_to_another() -> None:
    admission = Admission(threads=1)
    place = admission.enter()
    with pytest.raises(Unavailable):
        admission.enter()
    place.rest()
    place.rest()
    other = admission.enter()
    with pytest.raises(Unavailable):
        admission.enter()
    place.leave()
    other.leave()
    assert admission.taken == 0


def test_an_actor_has_so_many_places_and_others_theirs() -> None:
    admission = Admission(per_actor=1)
    first, second, third = admission.enter(), admission.enter(), admission.enter()
    first.claim("alice")
    with pytest.raises(RateLimited) as refusal:
        second.claim("alice")
    assert (refusal.value.status, refusal.value.retry_after) == (429, 1)
    third.claim("bob")
    second.leave()
    assert (admission.taken, admission.actors) == (2, 2)
    first.leave()
    again = admission.enter()
    again.claim("alice")


def test_the_rate_says_when_there_is_room_again() -> None:
    clock = FakeClock()
    admission = Admission(rate=Window(1, 60, clock=clock))
    admission.enter().claim("alice")
    clock.advance(20)
    place = admission.enter()
    with pytest.raises(RateLimited) as refusal:
        place.claim("alice")
    assert refusal.value.retry_after == 40
    place.leave()
    admission.enter().claim("bob")


def test_who_is_refused_for_the_places_has_not_used_the_rate() -> None:
    admission = Admission(per_actor=1, rate=Window(2, 60, clock=FakeClock()))
    first = admission.enter()
    first.claim("alice")
    for _ in range(5):
        with pytest.raises(RateLimited, match="at once"):
            entered(admission, "alice")
    first.leave()
    entered(admission, "alice").leave()
    with pytest.raises(RateLimited, match="too little time"):
        entered(admission, "alice")
    assert (admission.taken, admission.actors) == (0, 0)


def entered(admission: Admission, actor: str) -> Place:
    place = admission.enter()
    try:
        place.claim(actor)
    except RateLimited:
        place.leave()
        raise
    return place


def test_leaving_twice_is_leaving_once() -> None:
    admission = Admission()
    first, second = admission.enter(), admission.enter()
    first.leave()
    first.leave()
    assert admission.taken == 1
    second.leave()
    assert admission.taken == 0


def test_a_flood_of_refusals_writes_few_lines() -> None:
    admission = Admission(capacity=1, per_actor=1)
    with capture_logs() as logs:
        admission.enter().claim("alice")
        for _ in range(1000):
            with pytest.raises(Unavailable):
                admission.enter()
    lines, _ = LOGGED
    assert len(logs) == lines
    assert logs[0] == {
        "event": "request refused",
        "log_level": "warning",
        "reason": "all places are taken",
        "unlogged": 0,
    }


def test_the_next_line_tells_how_many_were_left_out() -> None:
    clock = FakeClock()
    admission = Admission(per_actor=1)
    admission._lines = Window(*LOGGED, clock=clock)
    admission.enter().claim("alice")
    with capture_logs() as logs:
        for _ in range(20):
            with pytest.raises(RateLimited):
                entered(admission, "alice")
        clock.advance(LOGGED[1])
        with pytest.raises(RateLimited):
            entered(admission, "alice")
    assert [(line["actor"], line["unlogged"]) for line in logs] == [("alice", 0)] * 5 + [("alice", 15)]


def test_many_threads_lose_no_place_and_never_exceed_the_limits() -> None:
    admission = Admission(capacity=6, per_actor=2)
    inside: dict[str, int] = {"alice": 0, "bob": 0, "carol": 0, "dave": 0}
    lock = threading.Lock()
    most = {"all": 0, "one": 0}
    refused = {Unavailable: 0, RateLimited: 0}

    def visits(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(300):
            actor = choose.choice(sorted(inside))
            try:
                place = entered(admission, actor)
            except (Unavailable, RateLimited) as error:
                with lock:
                    refused[type(error)] += 1
                continue
            with lock:
                inside[actor] += 1
                most["all"] = max(most["all"], sum(inside.values()))
                most["one"] = max(most["one"], inside[actor])
            with lock:
                inside[actor] -= 1
            place.leave()

    threads = [threading.Thread(target=visits, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most["all"] <= 6
    assert most["one"] <= 2
    assert (admission.taken, admission.actors) == (0, 0)
