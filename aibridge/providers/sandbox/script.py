"""What the sandbox's model does: it echoes the prompt, unless the prompt's lines direct it.

    call <tool> {json}          call that tool; several lines are parallel calls
    say <n> words               answer with that many words
    think <text>                think this first
    fail <status> [seconds]     answer with that HTTP status, with a Retry-After if seconds are given
    stall <seconds>             be silent for so long after the answer has begun
    cut                         die half-way

When tool results come back the model quotes them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from aibridge.records import new_id

WORDS = tuple(
    "the bridge carries every word across the water and remembers who sent it and why".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON text, as the prompt spelled it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Failure:
    status: int
    retry_after: int | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the model. `stall` is in seconds."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    failure: Failure | None = None
    stall: float = 0.0
    cut: bool = False

    @property
    def size_in_tokens(self) -> int:
        calls = (call.name + call.arguments for call in self.calls)
        return size_in_tokens("".join((self.thinking, self.text, *calls))) + 1


def _call(turn: Turn, match: re.Match[str]) -> Turn:
    return replace(turn, calls=(*turn.calls, ToolCall(match[1], match[2] or "{}")))


def _say(turn: Turn, match: re.Match[str]) -> Turn:
    return replace(turn, text=" ".join(islice(cycle(WORDS), min(int(match[1]), 100_000))))


def _think(turn: Turn, match: re.Match[str]) -> Turn:
    return replace(turn, thinking=match[1])


def _fail(turn: Turn, match: re.Match[str]) -> Turn:
    return replace(turn, failure=Failure(int(match[1]), int(match[2]) if match[2] else None))


def _stall(turn: Turn, match: re.Match[str]) -> Turn:
    return replace(turn, stall=float(match[1]))


def _cut(turn: Turn, _: re.Match[str]) -> Turn:
    return replace(turn, cut=True)


_DIRECTIVES: tuple[tuple[re.Pattern[str], Callable[[Turn, re.Match[str]], Turn]], ...] = (
    (re.compile(r"call ([A-Za-z0-9_.-]+)(?: (\{.*\}))?"), _call),
    (re.compile(r"say (\d{1,6}) words?"), _say),
    (re.compile(r"think (.+)"), _think),
    (re.compile(r"fail ([45]\d\d)(?: (\d{1,6}))?"), _fail),
    (re.compile(r"stall (\d{1,5}(?:\.\d+)?)"), _stall),
    (re.compile(r"cut"), _cut),
)


def perform(prompt: str, tool_results: Sequence[str] = ()) -> Turn:
    """The turn that answers `prompt`, or that quotes `tool_results` if the conversation just brought some."""
    if tool_results:
        return Turn(text="The tools answered: " + "; ".join(tool_results))
    turn = Turn()
    for line in prompt.splitlines():
        for pattern, act in _DIRECTIVES:
            match = pattern.fullmatch(line.strip())
            if match:
                turn = act(turn, match)
    return turn if turn.text or turn.calls else replace(turn, text=f"You said: {prompt}")


def size_in_tokens(content: str | bytes) -> int:
    """About what a real model would count."""
    return (len(content) + 3) // 4


def pieces(content: str) -> list[str]:
    """About three words each, so that a stream has something to stream."""
    return re.findall(r"\s*(?:\S+\s+){0,2}\S+\s*|\s+", content)


def new_response_id(prefix: str) -> str:
    return f"{prefix}sandbox{new_id().replace('-', '')[-16:]}"  # the part that is chance
