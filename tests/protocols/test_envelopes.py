"""Every error of ours has words in every protocol."""

import json

import pytest

from aibridge import errors
from aibridge.protocols.envelopes import anthropic_error, openai_error

KINDS = sorted({kind.kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "kind")})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_shape(kind: str) -> None:
    anthropic = json.loads(anthropic_error(kind, "why", "id"))
    assert anthropic["type"] == "error"
    assert set(anthropic["error"]) == {"type", "message"}
    assert anthropic["request_id"] == "id"
    openai = json.loads(openai_error(kind, "why", None))
    assert set(openai["error"]) == {"message", "type", "param", "code"}
