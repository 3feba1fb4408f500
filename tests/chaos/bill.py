"""A provider that keeps its own bill: every answer has an id of its own and is written down before it is sent."""

import json
import random
import re
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from tests.fake_provider import Received, Reply
from tests.fake_provider.model import USAGE, Call, Json, Part, Say, Think, streamed, whole
from tests.fake_provider.server import Step

ID = {"messages": "msg_{}", "chat_completions": "chatcmpl-{}", "responses": "resp_{}"}
TOOL = "bact_shout"
RESULTS = ("tool_result", '"role":"tool"', '"role": "tool"', "function_call_output")


@dataclass(frozen=True, order=True)
class Item:
    """What one answer of the provider cost: tokens given, from the cache, made."""

    response_id: str
    tokens: tuple[int, int, int] = USAGE


class Bill:
    """Answers like a model that writes slowly; `of(request)` is what a client's request has cost."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._items: dict[str, list[Item]] = defaultdict(list)

    def __call__(self, received: Received) -> Reply:
        text = received.body.decode()
        found = re.search(r"chaos-\d+", text)
        assert found, "a request that no client sent"
        body = json.loads(text)
        protocol = next(part for part in ID if f"/{part.replace('_', '/')}" in received.path)
        with self._lock:
            number = next(self._numbers)
            self._items[found[0]].append(Item(ID[protocol].format(number)))
            parts = self._parts(number, text)
            pauses = [self._random.random() * 0.03 for _ in range(200)]
        return _answer(protocol, number, parts, body, pauses)

    def of(self, request: str) -> list[Item]:
        with self._lock:
            return sorted(self._items[request])

    def _parts(self, number: int, text: str) -> list[Part]:
        words = " ".join(self._random.choices(("der", "Rhein", "fliesst", "weiter"), k=8))
        said: list[Part] = [Think("hm"), *(Say(f"{words} ") for _ in range(self._random.randint(1, 6)))]
        wants_tool = "with a tool" in text and not any(result in text for result in RESULTS)
        return [*said, Call(f"call_{number}", TOOL, '{"text": "grüezi"}')] if wants_tool else said


def _answer(protocol: str, number: int, parts: Sequence[Part], body: Json, pauses: Sequence[float]) -> Reply:
    if not body.get("stream"):
        return Reply.json(whole(protocol, number, parts))
    steps: list[Step] = []
    for step, pause in zip(streamed(protocol, number, parts, body), pauses, strict=False):
        steps += (step, pause)
    return Reply.sse(steps)
