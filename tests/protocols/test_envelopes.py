"""Every error of ours has words in every protocol."""

import json
from collections.abc import Callable

import anthropic
import openai
import pytest

from aibridge import errors
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.envelopes import anthropic_error, openai_error
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.sse import Decoder
from tests.protocols.sdk import anthropic_message, chat_completion, response

KINDS = sorted({kind.kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "kind")})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_shape(kind: str) -> None:
    anthropic = json.loads(anthropic_error(kind, "why", "id"))
    assert anthropic["type"] == "error"
    assert set(anthropic["error"]) == {"type", "message"}
    assert anthropic["request_id"] == "id"
    openai = json.loads(openai_error(kind, "why", None))
    assert set(openai["error"]) == {"message", "type", "param", "code"}


SDKS: list[tuple[WireProtocol, Callable[[bytes], object]]] = [
    (MESSAGES, anthropic_message),
    (CHAT_COMPLETIONS, chat_completion),
    (RESPONSES, response),
]


@pytest.mark.parametrize(("protocol", "sdk"), SDKS, ids=[protocol.name for protocol, _ in SDKS])
def test_the_sdks_raise_at_our_error_events_and_pass_over_our_pings(
    protocol: WireProtocol, sdk: Callable[[bytes], object]
) -> None:
    with pytest.raises((anthropic.APIError, openai.APIError), match="it died"):
        sdk(protocol.ping + protocol.error_event("upstream_error", "it died", "id"))
    (event,) = Decoder().feed(protocol.error_event("upstream_error", "it died", "id"))
    assert json.loads(event.data)["error"]["message"] == "it died"


def test_a_wrong_method_says_which_are_right() -> None:
    assert errors.MethodNotAllowed("no", allowed=("POST",)).allowed == ("POST",)
