"""Action files as tests write them, and calls as the gateway makes them."""

import time
from pathlib import Path
from threading import Event
from typing import Any

from aibridge import settings
from aibridge.actions.toolbox import ActionsToolbox
from aibridge.interception.toolbox import CallContext
from aibridge.protocols.tools import Image, Text, ToolResult

PYTHON = "tests.actions.functions"


def declared(name: str, kind: str = "string", more: str = "") -> str:
    return f'[[inputs]]\nname = "{name}"\ntype = "{kind}"\ndescription = "the {name}"\n{more}\n'


def document(run: str, *, name: str = "sample", inputs: str = "", front: str = "", body: str = "Does it.") -> str:
    return f'+++\nname = "{name}"\nversion = "1.0.0"\n{front}\n{inputs}\n[run]\n{run}\n+++\n{body}\n'


class Workshop:
    """A folder of actions with a toolbox over it that looks at the folder for every question."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        given = {"allowed_hosts": ("127.0.0.1",), "python": (f"{PYTHON}:greet",), **options}
        self.configured = settings.Actions(dir=str(folder), **given)
        self._seconds = 0.0
        self.toolbox = ActionsToolbox(self.configured, self._clock)

    def _clock(self) -> float:
        self._seconds += 10
        return self._seconds

    def write(self, run: str, *, file: str = "sample.md", **parts: str) -> None:
        (self.folder / file).write_text(document(run, **parts))

    def problems(self) -> list[str]:
        return list(self.toolbox.status()["actions"]["problems"])

    def result(
        self, *, timeout: float = 10, cancelled: Event | None = None, tool: str = "sample", **arguments: Any
    ) -> ToolResult:
        assert not self.problems()
        offered = next(each for each in self.toolbox.tools() if each.name == tool)
        context = CallContext("alice", "i-1", deadline=time.monotonic() + timeout, cancelled=cancelled or Event())
        return self.toolbox.call(offered, arguments, context)

    def text(self, **arguments: Any) -> str:
        """Of a result that is no error."""
        result = self.result(**arguments)
        assert not result.is_error, result
        return only_text(result)

    def error(self, **arguments: Any) -> str:
        """Of an error result."""
        result = self.result(**arguments)
        assert result.is_error, result
        return only_text(result)


def only_text(result: ToolResult) -> str:
    (part,) = result.parts
    assert isinstance(part, Text)
    return part.text


def only_image(result: ToolResult) -> Image:
    (part,) = result.parts
    assert isinstance(part, Image)
    return part
