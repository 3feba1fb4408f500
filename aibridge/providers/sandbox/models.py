"""The sandbox's models, in the shapes of both vendors' lists.

https://docs.anthropic.com/en/api/models-list, https://platform.openai.com/docs/api-reference/models/list
"""

from typing import Any

MODELS = ("sandbox-large", "sandbox-small")


def listed(name: str, *, for_anthropic: bool) -> dict[str, Any] | None:
    """The model called `name`, or all of them if it is empty; None if there is no such model."""
    model = _anthropic if for_anthropic else _openai
    if name:
        return model(name) if name in MODELS else None
    if for_anthropic:
        ends = {"has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
        return {"data": [model(each) for each in MODELS], **ends}
    return {"object": "list", "data": [model(each) for each in MODELS]}


def _anthropic(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _openai(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_767_225_600, "owned_by": "sandbox"}
