"""Secrets of actions: named in the file, read when the action is called, taken out of all that it says.

What is shorter than SHORTEST is not taken out: replacing every `abc` would spoil results and hide nothing.
"""

import json
import re
from collections.abc import Callable, Iterable

from aibridge.interception.toolbox import ToolFailed
from aibridge.settings import secret

SHORTEST = 6  # characters
REPLACEMENT = "[secret]"

# Capitals only: a key pasted in place of a variable's name shall be refused, not looked up and then reported.
_REFERENCE = re.compile(r"env:[A-Z_][A-Z0-9_]*|file:\S.*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_reference(text: str) -> bool:
    """Whether a constant of an action stands for a secret. Raises ValueError if it only looks like it."""
    if not text.startswith(("env:", "file:")):
        return False
    if not _REFERENCE.fullmatch(text):
        raise ValueError("a secret is named as env:NAME (capitals) or file:/path")
    return True


class Secrets:
    """The secrets of one call. The values stay in here: no repr, message or log shows them."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def value(self, reference: str) -> str:
        """The secret that `env:NAME` or `file:/path` names. Raises ToolFailed if it is not there."""
        try:
            value = str(secret(reference)).strip()
        except UnicodeDecodeError:
            raise ToolFailed(f"the secret {reference} is not UTF-8 text") from None
        except (OSError, ValueError) as error:
            raise ToolFailed(f"the secret {reference} is missing: {error}") from None
        if not value:
            raise ToolFailed(f"the secret {reference} is empty")
        self._values |= set(_spellings(value))
        return value

    def header(self, reference: str) -> str:
        """The same, where it must be fit for a header."""
        value = self.value(reference)
        if _CONTROL.search(value):
            raise ToolFailed(f"the secret {reference} holds a line break or another control character")
        return value

    def redacted(self, text: str, *, cut_before: bool = False, cut_after: bool = False) -> str:
        """The text without the secrets. Where it was cut, also without the half of one that a cut has left."""
        values = sorted(self._values, key=len, reverse=True)
        for value in values:
            text = text.replace(value, REPLACEMENT)
        if cut_after:
            text = text[: len(text) - _overlap(values, lambda value, size: text.endswith(value[:size]))]
        if cut_before:
            text = text[_overlap(values, lambda value, size: text.startswith(value[-size:])) :]
        return text


def _spellings(value: str) -> Iterable[str]:
    """How a secret may show up: whole, line by line (keys in PEM), and escaped inside JSON."""
    for part in (value, *value.splitlines()):
        for spelling in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            if len(spelling.strip()) >= SHORTEST:
                yield spelling.strip()


def _overlap(values: Iterable[str], matches: Callable[[str, int], bool]) -> int:
    """Of how many characters the longest part of a secret is that a cut has left; one at the edge counts too."""
    sizes = (size for value in values for size in range(len(value) - 1, 0, -1) if matches(value, size))
    return max(sizes, default=0)
