"""A provider that answers by a script, and whoever asks it."""

from collections.abc import Callable

from aibridge.errors import ClientGone
from aibridge.upstream.call import Headers, Upstream, UpstreamRequest, UpstreamResponse
from aibridge.upstream.key_pool import Key
from tests.fakes import ScriptedBody

FIRST, SECOND, THIRD = (Key(f"{number}...{number}", ("x-api-key", f"secret-{number}")) for number in (1, 2, 3))


def answer(status: int = 200, **headers: str) -> UpstreamResponse:
    """A small answer; an underscore in a header's name stands for a hyphen."""
    body = b"%d" % status
    told = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return UpstreamResponse(status, (("content-length", str(len(body))), *told), ScriptedBody([body]))


def body_of(response: UpstreamResponse) -> ScriptedBody:
    assert isinstance(response.body, ScriptedBody)
    return response.body


class Script:
    """An upstream that gives the answers in order; an exception among them is raised, a function is called."""

    def __init__(self, *answers: UpstreamResponse | Exception | Callable[[], UpstreamResponse]) -> None:
        self._answers = list(answers)
        self.requests: list[UpstreamRequest] = []

    def __call__(self, request: UpstreamRequest) -> UpstreamResponse:
        self.requests.append(request)
        given = self._answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given if isinstance(given, UpstreamResponse) else given()

    @property
    def keys(self) -> list[str]:
        return [dict(request.headers)["x-api-key"] for request in self.requests]


class Asker:
    """Asks an upstream. `hints` is what it is told of attempts; after `patience` questions it has gone."""

    def __init__(self, upstream: Upstream, *, central: bool = True, patience: int = 1_000_000) -> None:
        self._upstream = upstream
        self._central = central
        self._patience = patience
        self.hints: list[str | None] = []

    def ask(self, path: str = "/v1/messages", model: str = "m") -> UpstreamResponse:
        headers: Headers = (("accept", "*/*"), ("x-api-key", "user"), ("x-app", "cli"))
        return self._upstream(
            UpstreamRequest(
                path,
                headers,
                b"{}",
                model,
                central=self._central,
                abandoned=self._gone,
                attempted=self.hints.append,
            )
        )

    def status(self, path: str = "/v1/messages", model: str = "m") -> int:
        return self.ask(path, model).status

    def _gone(self) -> bool:
        self._patience -= 1
        return self._patience < 0


__all__ = ["FIRST", "SECOND", "THIRD", "Asker", "ClientGone", "Script", "answer", "body_of"]
