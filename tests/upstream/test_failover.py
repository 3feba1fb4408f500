"""Keys, retries and the breaker through the whole application: real SDKs, a real local provider, no real time.

The thirteen rows are those that the Go gateway is tested with, for each protocol, blocking and streaming.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from aibridge.app import create_app, gateway_of
from aibridge.interception.model import mask
from aibridge.records import InterceptionEnded, InterceptionStarted
from aibridge.settings import Settings
from aibridge.web.stream import StreamCut
from tests.fake_provider import FakeProvider, Received, Reply
from tests.fake_provider.model import Call, Json, Model, Part, Say
from tests.fakes import FakeClock, FakeToolbox, MemoryRecorder, text_result

KEYS = ("sk-the-first-key-of-ours-000", "sk-the-second-key-of-ours-111", "sk-the-third-key-of-ours-222")
OWN = "sk-a-key-of-the-users-own-999"
ROUTES = {
    "messages": "/anthropic/v1/messages",
    "chat_completions": "/openai/v1/chat/completions",
    "responses": "/openai/v1/responses",
}
TOOL = "bmcp_fake_look"
USES_A_TOOL: tuple[tuple[Part, ...], ...] = ((Say("I look."), Call("call_a", TOOL)), (Say("Done."),))
ANSWERS: tuple[tuple[Part, ...], ...] = ((Say("Done."),),)

# What the provider does with a request: it answers with that status and those headers, or as a model does.
Does = tuple[int, dict[str, str]] | None
OK: Does = None


def limited(seconds: int) -> Does:
    return 429, {"retry-after": str(seconds)}


def fails(status: int) -> Does:
    return status, {}


@dataclass
class Got:
    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False

    @property
    def error(self) -> Json:
        told: Json = json.loads(self.body)["error"]
        return told


class House:
    """The gateway with one provider, and what was seen of both."""

    def __init__(self, folder: Path, protocol: str, *, keys: int = 2, tools: bool = False, **fields: Any) -> None:
        self.protocol = protocol
        self.clock = FakeClock()
        self.store = MemoryRecorder()
        self.fake = FakeProvider()
        self.model = Model(protocol, USES_A_TOOL if tools else ANSWERS)
        self.script: list[Does] = []
        self.fake.always(self._does)
        self.name = ROUTES[protocol].split("/")[1]
        entry = {
            "name": self.name,
            "type": self.name,
            "base_url": self.fake.url + ("/v1" if self.name == "openai" else ""),
            "keys": KEYS[:keys],
            "retry": {"max_retries": 0},
            **fields,
        }
        settings = Settings(
            database={"url": f"sqlite:///{folder}/x.db"},
            recording={"spool_dir": folder / "spool"},
            providers=[entry],
        )
        toolbox = FakeToolbox(look=lambda arguments, context: text_result("Rain."))
        self.app = create_app(
            settings, recorder=self.store, toolboxes=[toolbox] if tools else [], clock=self.clock
        )
        self.client: FlaskClient = self.app.test_client()

    def close(self) -> None:
        gateway_of(self.app).close()
        self.fake.close()

    def _does(self, received: Received) -> Reply:
        received.arrived.wait(10)
        does = self.script.pop(0) if self.script else OK
        if does is not None:
            status, headers = does
            error = {"type": "its_own", "message": f"the provider says {status}"}
            return Reply.json({"type": "error", "error": error}, status, tuple(headers.items()))
        if received.method == "GET":
            return Reply.json({"data": []})
        return self.model(received)

    def ask(self, *does: Does, stream: bool = False, own: bool = False, protocol: str = "") -> Got:
        self.script = list(does)
        protocol = protocol or self.protocol
        asked = [{"role": "user", "content": "What now?"}]
        body: Json = {"model": "m", "stream": stream}
        body |= {"input": asked} if protocol == "responses" else {"messages": asked}
        if stream and protocol == "chat_completions":
            body["stream_options"] = {"include_usage": True}
        return self._got("POST", ROUTES[protocol], own, json=body)

    def list_models(self, *does: Does) -> Got:
        self.script = list(does)
        return self._got("GET", f"/{self.name}/v1/models", own=False)

    def _got(self, method: str, path: str, own: bool, **body: Any) -> Got:
        credential = {"x-api-key": OWN} if self.name == "anthropic" else {"authorization": f"Bearer {OWN}"}
        answer = self.client.open(path, method=method, headers=credential if own else {}, **body)
        got = Got(answer.status_code, dict(answer.headers.to_wsgi_list()), b"", cut=True)
        with suppress(StreamCut):
            for piece in answer.response:
                got.body += piece if isinstance(piece, bytes) else piece.encode()
            got.cut = False
        answer.close()
        got.headers = {name.lower(): value for name, value in got.headers.items()}
        return got

    @property
    def keys_seen(self) -> str:
        """The number of each key in the order of their use; `u` is the user's own."""
        sent = [
            request.header("x-api-key") or (request.header("authorization") or "").removeprefix("Bearer ")
            for request in self.fake.received
        ]
        return "".join("u" if key == OWN else str(KEYS.index(key)) for key in sent)

    @property
    def states(self) -> str:
        """The first letter of each key's state."""
        pool = gateway_of(self.app).providers[self.name].pool
        assert pool
        return "".join(key["state"][0] for key in pool.status())

    @property
    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        pool = gateway_of(self.app).providers[self.name].pool
        assert pool
        return dict(pool.transitions), dict(pool.exhaustions)

    @property
    def end(self) -> InterceptionEnded:
        end = self.store.of(InterceptionEnded)[-1]
        assert isinstance(end, InterceptionEnded)
        return end

    @property
    def start(self) -> InterceptionStarted:
        start = self.store.of(InterceptionStarted)[-1]
        assert isinstance(start, InterceptionStarted)
        return start


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[Any]:
    made: list[House] = []

    def build(protocol: str, **fields: Any) -> House:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(House(folder, protocol, **fields))
        return made[-1]

    yield build
    for house in made:
        house.close()


protocols = pytest.mark.parametrize("protocol", list(ROUTES))
streaming = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])


@dataclass(frozen=True)
class Case:
    """A request and what comes of it; of keys and states see House."""

    does: tuple[Does, ...]
    status: int
    keys: str
    states: str
    transitions: dict[str, int]
    exhaustions: dict[str, int]
    retry_after: str | None = None
    error_type: str | None = None


LIMIT, REFUSAL = "rate_limited", "unauthorized"

CASES = {
    "single valid": Case((OK,), 200, "0", "v", {}, {}),
    "failover 429": Case((limited(5), OK), 200, "01", "rv", {LIMIT: 1}, {}),
    "failover 401": Case((fails(401), OK), 200, "01", "uv", {REFUSAL: 1}, {}),
    "all limited": Case(
        (limited(5), limited(3), limited(10)), 429, "012", "rrr", {LIMIT: 3}, {LIMIT: 1}, "3", LIMIT
    ),
    "all unauthorized": Case((fails(401), fails(401)), 502, "01", "uu", {REFUSAL: 2}, {REFUSAL: 1}, None, REFUSAL),
    "forbidden": Case((fails(403),), 403, "0", "vv", {}, {}, None, REFUSAL),
    "server error": Case((fails(500),), 500, "0", "vv", {}, {}, None, "server_error"),
}


@protocols
@streaming
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_one_call(houses: Any, protocol: str, stream: bool, case: Case) -> None:
    house: House = houses(protocol, keys=len(case.states))
    got = house.ask(*case.does, stream=stream)
    assert (got.status, house.keys_seen, house.states) == (case.status, case.keys, case.states)
    assert house.counts == (case.transitions, case.exhaustions)
    assert got.headers.get("retry-after") == case.retry_after
    assert (house.end.error_type, house.end.attempts) == (case.error_type, len(case.keys))
    assert house.end.credential_hint == mask(KEYS[int(case.keys[-1])])
    if case.exhaustions:
        limit = LIMIT in case.exhaustions
        assert got.error["type"] == ("rate_limit_error" if limit else "api_error")
        assert "all configured keys" in got.error["message"]
        if protocol != "messages":
            assert got.error["code"] == ("rate_limit_exceeded" if limit else "server_error")
    elif case.status >= 400:
        assert got.error["message"] == f"the provider says {case.status}"


@protocols
@streaming
def test_a_users_own_key_is_limited(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol, retry={})
    got = house.ask((429, {"retry-after": "5", "x-should-retry": "false"}), stream=stream, own=True)
    assert (got.status, got.headers["retry-after"], house.keys_seen) == (429, "5", "u")
    assert (house.states, house.counts) == ("vv", ({}, {}))
    assert house.start.credential_hint == mask(OWN)
    assert house.end.credential_hint is None


@protocols
@streaming
def test_rounds_of_a_tool_loop_begin_with_the_first_key(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol, tools=True)
    got = house.ask(OK, OK, stream=stream)
    assert (got.status, house.keys_seen, house.states) == (200, "00", "vv")
    assert b"ne." in got.body
    assert (house.end.rounds, house.end.attempts) == (2, 2)
    assert house.end.credential_hint == mask(KEYS[0])


@protocols
@streaming
def test_failover_in_a_later_round(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol, tools=True)
    got = house.ask(OK, limited(5), OK, stream=stream)
    assert (got.status, got.cut, house.keys_seen, house.states) == (200, False, "001", "rv")
    assert house.counts == ({LIMIT: 1}, {})
    assert (house.end.status, house.end.rounds, house.end.attempts) == ("completed", 2, 3)
    assert house.end.credential_hint == mask(KEYS[1])


@protocols
@streaming
def test_no_key_is_left_in_a_later_round(houses: Any, protocol: str, stream: bool) -> None:
    """What is open already ends with an error event."""
    house: House = houses(protocol, tools=True)
    got = house.ask(OK, limited(5), limited(3), stream=stream)
    assert (house.keys_seen, house.states) == ("001", "rr")
    assert house.counts == ({LIMIT: 2}, {LIMIT: 1})
    assert (house.end.status, house.end.error_type) == ("failed", LIMIT)
    assert house.end.credential_hint == mask(KEYS[1])
    if stream:
        assert (got.status, got.cut, got.headers.get("retry-after")) == (200, True, None)
        assert b"all configured keys are rate-limited" in got.body
        assert b"ook." in got.body
    else:
        assert (got.status, got.headers["retry-after"]) == (429, "3")


@protocols
@streaming
def test_the_next_request_knows(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol)
    assert house.ask(limited(60), OK, stream=stream).status == 200
    assert house.ask(OK, stream=stream).status == 200
    assert (house.keys_seen, house.states) == ("011", "rv")
    house.clock.advance(60)
    house.ask(OK, stream=stream)
    assert house.keys_seen == "0110"


@protocols
@streaming
def test_the_other_routes_know(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol)
    other = {"chat_completions": "responses", "responses": "chat_completions"}.get(protocol, protocol)
    assert house.ask(limited(60), OK, stream=stream).status == 200
    house.model = Model(other, ANSWERS)
    assert house.ask(OK, stream=stream, protocol=other).status == 200
    assert house.list_models(OK).status == 200
    assert (house.keys_seen, house.states) == ("0111", "rv")


# --- beyond the rows ---------------------------------------------------------------------------------------------


@protocols
def test_passed_through_routes_fail_over(houses: Any, protocol: str) -> None:
    house: House = houses(protocol)
    assert house.list_models(limited(60), OK).status == 200
    assert house.ask(OK).status == 200
    got = house.list_models(limited(7))
    assert (got.status, got.headers["retry-after"], house.keys_seen) == (429, "7", "0111")
    got = house.list_models()
    assert (got.status, got.error["type"], got.headers["retry-after"]) == (429, "rate_limit_error", "7")
    assert len(house.fake.received) == 4


@protocols
@streaming
def test_a_tiny_retry_after_does_not_spin(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol, tools=True, retry={"max_retries": 1})
    tiny: Does = (429, {"retry-after-ms": "1"})
    got = house.ask(*[tiny] * 100, stream=stream)
    assert got.status == 429
    assert house.keys_seen == "0101"
    assert house.end.attempts == 4


@protocols
@streaming
def test_a_bad_moment_is_waited_for(houses: Any, protocol: str, stream: bool) -> None:
    """Also in a later round, and by default."""
    house: House = houses(protocol, tools=True, retry=None)
    got = house.ask(fails(529), OK, fails(503), fails(500), OK, stream=stream)
    assert (got.status, got.cut, house.keys_seen) == (200, False, "00000")
    assert (house.end.status, house.end.rounds, house.end.attempts) == ("completed", 2, 5)
    assert sum(house.clock.slept) > 1


@protocols
@streaming
def test_an_open_circuit(houses: Any, protocol: str, stream: bool) -> None:
    house: House = houses(protocol, circuit_breaker={"failure_threshold": 2, "timeout": 30})
    assert [house.ask(fails(529), stream=stream).status for _ in range(2)] == [529, 529]
    house.clock.advance(9.5)
    got = house.ask(stream=stream)
    assert (got.status, got.headers["retry-after"]) == (503, "21")
    assert got.error["type"] == ("overloaded_error" if protocol == "messages" else "server_error")
    assert (house.end.status, house.end.attempts, house.end.credential_hint) == ("failed", 0, None)
    assert len(house.fake.received) == 2
    circuits = gateway_of(house.app).providers[house.name].circuits
    assert circuits
    assert circuits.status()[0]["state"] == "open"
    house.clock.advance(21)
    assert house.ask(OK, stream=stream).status == 200


def test_the_sandbox_is_not_asked_twice_and_has_no_keys_that_rest(tmp_path: Path) -> None:
    settings = Settings(
        database={"url": f"sqlite:///{tmp_path}/x.db"},
        recording={"spool_dir": tmp_path / "spool"},
        providers=[{"name": "sandbox", "type": "sandbox"}],
    )
    app = create_app(settings, recorder=MemoryRecorder(), clock=(clock := FakeClock()))
    try:
        for text, status in (("fail 429 7", 429), ("fail 401", 401), ("fail 529", 529), ("hi", 200)):
            asked = {"model": "m", "messages": [{"role": "user", "content": text}]}
            assert app.test_client().post("/sandbox/v1/messages", json=asked).status_code == status
        assert clock.slept == []
    finally:
        gateway_of(app).close()
