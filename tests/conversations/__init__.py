"""Conversations as data: a request, the provider's answer in both forms, and the records they must leave."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Conversation:
    """`blocking` is None where the case exists as a stream only."""

    name: str
    request: bytes
    stream: bytes
    blocking: bytes | None
    records: dict[str, Any]


def conversations(protocol: str) -> list[Conversation]:
    return [_read(folder) for folder in sorted((ROOT / protocol).iterdir())]


def _read(folder: Path) -> Conversation:
    blocking = folder / "upstream.json"
    return Conversation(
        folder.name,
        (folder / "request.json").read_bytes(),
        (folder / "upstream.sse").read_bytes(),
        blocking.read_bytes() if blocking.exists() else None,
        json.loads((folder / "records.json").read_bytes()),
    )
