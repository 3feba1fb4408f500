"""How a provider's route list becomes a Flask blueprint."""

from collections.abc import Sequence

from flask import Blueprint, Response

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.interceptor import WireProtocol
from aibridge.web.front import bridged
from aibridge.web.passthrough import passed_through

ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def provider_blueprint(
    gateway: Gateway,
    provider: Provider,
    *,
    bridged_routes: Sequence[tuple[str, WireProtocol]],
    passthrough_routes: Sequence[tuple[str, WireProtocol]],
) -> Blueprint:
    """Routes are (path below the provider's name, protocol); a path may end in `<path:rest>`. The protocol of a
    passed-through route is the one whose error shape its clients understand."""
    blueprint = Blueprint(f"provider-{provider.name}", __name__, url_prefix=f"/{provider.name}")
    blueprint.add_url_rule("", "warm_up", warm_up, methods=["GET", "HEAD"], strict_slashes=False)
    blueprint.add_url_rule("/api/hello", "hello", warm_up, methods=["GET", "HEAD"])
    for number, (path, protocol) in enumerate(bridged_routes):
        view = bridged(gateway, provider, protocol, path)
        blueprint.add_url_rule(
            path,
            f"bridged-{number}",
            view,
            methods=["POST"],
            strict_slashes=False,
            provide_automatic_options=False,
        )
    for number, (path, protocol) in enumerate(passthrough_routes):
        forward = passed_through(gateway, provider, protocol)
        blueprint.add_url_rule(
            path, f"passed-{number}", forward, methods=ANY_METHOD, provide_automatic_options=False
        )
    return blueprint


def warm_up() -> Response:
    """What clients ask before their first request, to open a connection."""
    return Response(status=200)
