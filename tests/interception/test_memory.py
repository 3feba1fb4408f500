"""What stays in the process of answers that clients did not see whole."""

from aibridge.interception.memory import REMEMBERED_FOR, ProcessMemory, size
from aibridge.protocols.rounds import HiddenTurn, Round
from tests.fakes import FakeClock

TURN = HiddenTurn((Round(b"[1]", (b"{}", b"{}")),), mixed=True, response_id="resp_1")


def test_a_turn_is_found_under_each_of_its_keys_by_its_actor() -> None:
    memory = ProcessMemory()
    memory.remember("alice", ["a", "b"], TURN)
    assert memory.recall("alice", ["a", "b", "c"]) == {"a": TURN, "b": TURN}
    assert memory.recall("bob", ["a"]) == {}


def test_a_turn_expires() -> None:
    clock = FakeClock()
    memory = ProcessMemory(clock)
    memory.remember("alice", ["a"], TURN)
    clock.advance(REMEMBERED_FOR - 1)
    assert memory.recall("alice", ["a"])
    clock.advance(2)
    assert not memory.recall("alice", ["a"])


def test_when_it_is_full_the_oldest_go() -> None:
    memory = ProcessMemory(limit=2 * size(TURN))
    for key in ("a", "b", "a", "c"):
        memory.remember("alice", [key], TURN)
    assert sorted(memory.recall("alice", ["a", "b", "c"])) == ["a", "c"]
