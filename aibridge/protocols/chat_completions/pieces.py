"""The pieces that a Chat Completions answer comes in, and what they make together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aibridge.protocols.chat_completions.accounting import DONE
from aibridge.protocols.editing import ObjectText, array, elements
from aibridge.protocols.reading import dumped, mapping, parsed_object, sequence, text
from aibridge.protocols.sse import encode, event_in


@dataclass(slots=True)
class Call:
    """A call as it grows. `index` is its place in the round, `place` that in the answer; `ours` None: it is not
    known yet."""

    index: int
    id: str = ""
    name: str = ""
    kind: str = "function"
    begun: bool = False  # its arguments have, so the name is whole
    pieces: list[dict[str, Any]] = field(default_factory=list)
    ours: bool | None = None
    place: int | None = None

    def grow(self, piece: dict[str, Any]) -> None:
        """Names come in one piece or in several, and some servers repeat the whole name in each."""
        self.kind = "custom" if "custom" in piece or piece.get("type") == "custom" else self.kind
        body = mapping(piece.get(self.kind))
        name = text(body.get("name"))
        self.id = self.id or text(piece.get("id"))
        self.name += name if name != self.name else ""
        self.begun = self.begun or bool(_arguments(body))
        self.pieces.append(piece)

    @property
    def arguments(self) -> str:
        return "".join(_arguments(mapping(piece.get(self.kind))) for piece in self.pieces)

    @property
    def unusable(self) -> bool:
        return bool(self.ours) and parsed_object(self.arguments.encode()) is None

    def whole(self) -> dict[str, Any]:
        """The call as a request carries it. Whatever else servers put into it, they want back."""
        own = ("index", "id", "type")
        rest = mapping(merged([{n: v for n, v in piece.items() if n not in own} for piece in self.pieces]))
        arguments = "{}" if self.unusable else self.arguments
        said = {"name": self.name, "input" if self.kind == "custom" else "arguments": arguments}
        return {"id": self.id, "type": self.kind, **rest, self.kind: {**mapping(rest.get(self.kind)), **said}}


@dataclass(slots=True)
class Chunk:
    """An event of the stream, or a whole body. `json` is its data, `data` the object in it ({}: there is none);
    `calls` are those whose pieces are in its `tool_calls`."""

    written: bytes
    name: str = ""
    json: bytes = b""
    data: dict[str, Any] = field(default_factory=dict)
    part: str = "delta"
    calls: list[Call | None] = field(default_factory=list)

    @property
    def choice(self) -> dict[str, Any]:
        """The first one: with tools of ours there are no others."""
        return mapping(next(iter(sequence(self.data.get("choices"))), None))

    @property
    def delta(self) -> dict[str, Any]:
        return mapping(self.choice.get(self.part))

    @property
    def finish_reason(self) -> str:
        return text(self.choice.get("finish_reason"))

    @property
    def usage(self) -> dict[str, Any]:
        return mapping(self.data.get("usage"))

    @property
    def done(self) -> bool:
        return self.json.strip() == DONE

    def edited(self, put: dict[str, bytes], choice: dict[str, bytes]) -> bytes:
        """The event with these members, and these ones in its choice."""
        return encode(self.name, self.edited_json(put, choice)) if put or choice else self.written

    def edited_json(self, put: dict[str, bytes], choice: dict[str, bytes]) -> bytes:
        whole = ObjectText(self.json)
        if choice:
            first, *others = elements(whole.value("choices") or b"[]")
            put = put | {"choices": array([ObjectText(first).edited(put=choice), *others])}
        return whole.edited(put=put)

    def written_part(self) -> ObjectText:
        """The delta, or the message, as it is written."""
        first, *_ = elements(ObjectText(self.json).value("choices") or b"[]")
        return ObjectText(ObjectText(first).value(self.part) or b"{}")


def read_chunk(written: bytes) -> Chunk:
    """The chunk that an event is."""
    event = event_in(written)
    if event is None:
        return Chunk(written)
    return Chunk(written, event.name, event.data, parsed_object(event.data) or {})


def merged(pieces: Iterable[Any]) -> Any:
    """The value that came in these pieces: texts and lists are put together, objects member by member, of anything
    else the last one counts."""
    told = [piece for piece in pieces if piece is not None]
    if len(told) < 2:
        return told[0] if told else None
    if all(isinstance(piece, str) for piece in told):
        return "".join(told)
    if all(isinstance(piece, dict) for piece in told):
        names = dict.fromkeys(name for piece in told for name in piece)
        return {name: merged([piece[name] for piece in told if name in piece]) for name in names}
    if any(isinstance(piece, list) for piece in told):
        return [item for piece in told for item in _items(piece)]
    return told[-1]


def _items(piece: Any) -> list[Any]:
    """A content may come as a text in one piece and as parts in another."""
    if isinstance(piece, str):
        return [{"type": "text", "text": piece}] if piece else []
    return sequence(piece)


def _arguments(body: dict[str, Any]) -> str:
    """They are a text, but for some servers an object."""
    arguments = body.get("arguments", body.get("input"))
    return dumped(arguments) if isinstance(arguments, dict) else text(arguments)
