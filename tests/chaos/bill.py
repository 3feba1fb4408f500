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
RESULTS = ("tool_result", '"role":"tool"', '"role": "tool"', "function_call_output")


@dataclass(frozen=True, order=True)
class Item:
    """What one answer of the provider cost, tokens given, from the cache, made; and the tools it called."""

    response_id: str
    tokens: tuple[int, int, int] = USAGE
    calls: tuple[str, ...] = ()


class Bill:
    """Answers like a model that writes slowly; `of(request)` is what a client's request has cost.

    It calls the tools that the request names ("calls TOOL"), if they are offered and have not given results yet.
    """

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
            calls = _calls(number, text, body)
            item = Item(ID[protocol].format(number), calls=tuple(sorted(call.id for call in calls)))
            self._items[found[0]].append(item)
            parts = [*self._said(), *calls]
            pauses = [self._random.random() * 0.03 for _ in range(200)]
        return _answer(protocol, number, parts, body, pauses)

    def of(self, request: str) -> list[Item]:
        with self._lock:
            return sorted(self._items[request])

    def _said(self) -> list[Part]:
        words = " ".join(self._random.choices(("der", "Rhein", "fliesst", "weiter"), k=8))
        return [Think("hm"), *(Say(f"{words} ") for _ in range(self._random.randint(1, 6)))]


def _calls(number: int, text: str, body: Json) -> list[Call]:
    if any(result in text for result in RESULTS):
        return []
    offered = {(tool.get("function") or tool)["name"] for tool in body.get("tools", ())}
    wanted = [name for name in re.findall(r"calls (\w+)", text) if name in offered]
    return [Call(f"call_{number}_{name}", name, '{"text": "grüezi"}') for name in wanted]


def _answer(protocol: str, number: int, parts: Sequence[Part], body: Json, pauses: Sequence[float]) -> Reply:
    if not body.get("stream"):
        return Reply.json(whole(protocol, number, parts))
    steps: list[Step] = []
    for step, pause in zip(streamed(protocol, number, parts, body), pauses, strict=False):
        steps += (step, pause)
    return Reply.sse(steps)
