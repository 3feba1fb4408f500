"""How many in how much time, with a clock that is told the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from aibridge.interception.rates import SharedOrOwn, Window
from tests.fakes import FakeClock


def test_one_too_many_waits_until_the_oldest_is_over() -> None:
    clock = FakeClock()
    window = Window(2, 10, clock=clock)
    assert window.hit("a") == 0
    clock.advance(4)
    assert window.hit("a") == 0
    clock.advance(1)
    assert window.hit("a") == 5
    assert window.hit("b") == 0
    clock.advance(4.75)
    assert window.hit("a") == 0.25
    clock.advance(0.25)
    assert window.hit("a") == 0
    assert window.hit("a") == 4


def test_refusals_do_not_count() -> None:
    clock = FakeClock()
    window = Window(1, 10, clock=clock)
    window.hit("a")
    for _ in range(9):
        clock.advance(1)
        assert window.hit("a") > 0
    clock.advance(1)
    assert window.hit("a") == 0


@given(
    st.integers(1, 5),
    st.sampled_from([1, 7, 60]),
    st.lists(st.integers(0, 40), max_size=80),  # quarters of a second between two requests
)
def test_never_more_than_allowed_in_any_window_and_the_wait_is_exact(
    count: int, seconds: int, pauses: list[int]
) -> None:
    clock = FakeClock()
    window = Window(count, seconds, clock=clock)
    let_in: list[float] = []
    for pause in pauses:
        clock.advance(pause / 4)
        wait = window.hit("a")
        recent = [moment for moment in let_in if moment > clock.now - seconds]
        if wait:
            assert len(recent) == count
            assert wait == recent[0] + seconds - clock.now
        else:
            assert len(recent) < count
            let_in.append(clock.now)


def test_keys_that_clients_invent_fill_no_memory() -> None:
    clock = FakeClock()
    window = Window(3, 10, most_keys=100, clock=clock)
    for number in range(5000):
        assert window.hit(f"invented-{number}") == 0
        if number % 10 == 0:
            window.hit("busy")  # seen often, so not forgotten
    assert window.keys == 100
    assert window.hit("busy") > 0
    clock.advance(10)
    assert window.hit("later") == 0
    assert window.keys == 1


def test_hits_of_a_generous_rate_fill_no_memory() -> None:
    window = Window(1000, 10, most_hits=50, clock=FakeClock())
    for number in range(40):
        window.hit(f"small-{number}")
    for _ in range(45):
        assert window.hit("large") == 0
    assert window.keys == 6
    assert window._total == 50


def test_a_key_alone_keeps_all_its_hits() -> None:
    window = Window(100, 10, most_hits=50, clock=FakeClock())
    assert [bool(window.hit("a")) for _ in range(101)] == [False] * 100 + [True]


class Shared:
    """A rate somewhere else, which fails when told to."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.wait = 0.0
        self.asked = 0

    def hit(self, key: str, /) -> float:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return self.wait


class Scene:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.shared = Shared()
        self.rate = SharedOrOwn(self.shared, Window(1, 60, clock=self.clock), pause=10, clock=self.clock)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_shared_count_decides(scene: Scene) -> None:
    assert [scene.rate.hit("a"), scene.rate.hit("a")] == [0, 0]
    scene.shared.wait = 7
    assert scene.rate.hit("a") == 7
    assert scene.shared.asked == 3


def test_while_it_fails_each_counts_for_itself_and_it_is_asked_seldom(scene: Scene) -> None:
    scene.shared.fails = ConnectionError("nobody there")
    with capture_logs() as logs:
        assert scene.rate.hit("a") == 0
        assert scene.rate.hit("a") == 60
        assert scene.shared.asked == 1
        scene.clock.advance(10)
        assert scene.rate.hit("a") == 50
        assert scene.shared.asked == 2
        scene.clock.advance(9)
        assert scene.rate.hit("b") == 0
        assert scene.shared.asked == 2
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "ConnectionError: nobody there")]


def test_when_it_works_again_it_decides_again(scene: Scene) -> None:
    scene.shared.fails = TimeoutError()
    with capture_logs() as logs:
        scene.rate.hit("a")
        scene.shared.fails = None
        scene.clock.advance(10)
        assert [scene.rate.hit("a"), scene.rate.hit("a")] == [0, 0]
        scene.shared.fails = TimeoutError()
        scene.rate.hit("a")
    assert scene.shared.asked == 4
    assert [line["log_level"] for line in logs] == ["warning", "info", "warning"]


def test_only_one_request_at_a_time_finds_out_whether_it_works_again(scene: Scene) -> None:
    """The others do not wait for it."""
    scene.shared.fails = TimeoutError()
    scene.rate.hit("a")
    scene.clock.advance(10)
    asked_meanwhile: list[int] = []

    class Slow(Shared):
        def hit(self, key: str, /) -> float:
            scene.rate.hit("b")
            asked_meanwhile.append(self.asked)
            raise TimeoutError

    slow = Slow()
    scene.rate._shared = slow
    scene.rate.hit("c")
    assert asked_meanwhile == [0]
