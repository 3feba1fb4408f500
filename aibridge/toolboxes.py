"""Which toolboxes the settings stand for."""

from aibridge.actions.toolbox import ActionsToolbox
from aibridge.interception.toolbox import Toolbox
from aibridge.settings import Settings


def toolboxes_of(settings: Settings) -> list[Toolbox]:
    """Nothing connects or starts here."""
    toolboxes: list[Toolbox] = [ActionsToolbox(settings.actions)]
    if settings.mcp_servers:
        from aibridge.mcp.toolbox import McpToolbox  # noqa: PLC0415  half a second and 26 MiB that few need

        toolboxes.append(McpToolbox(settings.mcp_servers))
    return toolboxes
