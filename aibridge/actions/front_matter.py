"""The file of an action: TOML between two `+++` lines, then Markdown that tells the model what the action is for.

    +++
    name = "weather"
    version = "1.0.0"

    [[inputs]]
    name = "city"
    type = "string"
    description = "Name of the city"

    [run]
    kind = "http"
    url = "https://api.example.com/weather/${args.city}"
    +++
    The weather of a city, now.

Pure: text in, a Manifest out, or an error with its line. `manifest.py` says which keys there are.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from aibridge.actions.interpolation import references
from aibridge.actions.manifest import Manifest

DELIMITER = "+++"

# pydantic's kinds of errors, in the words of someone who writes such a file.
_REASONS = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "union_tag_invalid": "kind must be http, command or python",
    "union_tag_not_found": "kind is missing: http, command or python",
}


class ManifestError(Exception):
    """The file is wrong. `line` counts from 1; None: no line in particular."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """A file: its keys, its description for the model, and where a reader finds what is said about them."""

    manifest: Manifest
    description: str
    front: tuple[str, ...]

    def line(self, *keys: str) -> int | None:
        """Of a key, from its table on."""
        return _line_of(keys, self.front)

    def line_with(self, text: str) -> int | None:
        """The first that holds this text."""
        return next((number for number, line in enumerate(self.front, 1) if text in line), None)


def parse(text: str) -> Document:
    """Raises ManifestError with the line in this text."""
    lines = text.removeprefix("\ufeff").split("\n")
    begin, end = _delimiters(lines)
    # Empty lines in place of what stands before, so that TOML counts the file's lines.
    front = (*[""] * (begin + 1), *lines[begin + 1 : end])
    try:
        values = tomllib.loads("\n".join([*front, ""]))
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(str(error), end) from None
    try:
        manifest = Manifest(**values)
    except ValidationError as error:
        raise _explained(error, front) from None
    description = _description("\n".join(lines[end + 1 :]), manifest.description_limit, end + 1)
    document = Document(manifest, description, front)
    _check_references(document)
    return document


def _delimiters(lines: Sequence[str]) -> tuple[int, int]:
    """The indexes of the two lines around the front matter."""
    begin = next((index for index, line in enumerate(lines) if line.strip()), None)
    if begin is None or lines[begin].strip() != DELIMITER:
        raise ManifestError(f"must begin with a line {DELIMITER}", (begin or 0) + 1)
    for index in range(begin + 1, len(lines)):
        if lines[index].strip() == DELIMITER:
            return begin, index
    raise ManifestError(f"the second line {DELIMITER}, after the front matter, is missing", len(lines))


def _toml_error(message: str, end: int) -> ManifestError:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = int(place[1]) if place and place[1] else end + 1
    return ManifestError(f"is not valid TOML: {message[: place.start()] if place else message}", line)


def _description(body: str, limit: int, line: int) -> str:
    """The Markdown without its title; one longer than `limit` characters ends with a marker."""
    first, _, rest = body.strip().partition("\n")
    description = (rest if re.fullmatch(r"#(\s.*)?", first.strip()) else body).strip()
    if not description:
        raise ManifestError(f"the description after the second {DELIMITER} is empty", line)
    if len(description) <= limit:
        return description
    return f"{description[:limit]}\n[cut: the first {limit} of {len(description)} characters]"


def _check_references(document: Document) -> None:
    """Raises ManifestError unless every `${args.x}` of [run] names a declared input."""
    declared = {parameter.name for parameter in document.manifest.inputs}
    for key, template in document.manifest.run.templates().items():
        try:
            unknown = [name for name in references(template) if name not in declared]
        except ValueError as error:
            raise ManifestError(f"run.{key}: {error}", document.line("run", key)) from None
        if unknown:
            mark = f"${{args.{unknown[0]}}}"
            raise ManifestError(f"run.{key}: {mark} is no declared input", document.line_with(mark))


def _explained(error: ValidationError, lines: Sequence[str]) -> ManifestError:
    """All that is wrong with the keys, with the line of the first."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    messages = []
    for problem in problems:
        # After "run" pydantic names the member of the union, which is no key.
        location = [str(part) for part in problem["loc"]]
        place = ".".join(location[:1] + location[2:] if location[:1] == ["run"] else location)
        reason = _REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        messages.append(f"{place}: {reason}" if place else reason)
    first = problems[0]
    location_of_first = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
    return ManifestError("; ".join(messages), _line_of(location_of_first, lines))


def _line_of(location: Sequence[int | str], lines: Sequence[str]) -> int | None:
    """The line where a key stands: its table's header, then the key below it. As near as a look at the text gets;
    None if not even the table is found."""
    found, start = None, 0
    for part, following in zip(location, [*location[1:], None], strict=True):
        if isinstance(part, int):
            continue
        name = rf"[\"']?{re.escape(part)}[\"']?"
        header_or_key = re.compile(rf"\s*(\[\[?\s*([\w.]+\.)?{name}\s*\]|{name}\s*=)")
        hits = [index for index in range(start, len(lines)) if header_or_key.match(lines[index])]
        wanted = following if isinstance(following, int) else 0
        if wanted < len(hits):
            start = hits[wanted]
            found = start + 1
    return found
