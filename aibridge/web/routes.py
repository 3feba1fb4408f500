"""How a provider's route list becomes a Flask blueprint."""

from dataclasses import dataclass

from flask import Blueprint, Response

from aibridge.interception.gateway import Gateway, Provider
from aibridge.protocols.interceptor import WireProtocol
from aibridge.web.front import bridged
from aibridge.web.passthrough import passed_through

ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


Route = tuple[str, WireProtocol]


@dataclass(frozen=True, slots=True)
class Routes:
    """What one type of provider serves, as (path below the provider's name, protocol); a path may end in
    `<path:rest>`. The protocol of a passed-through route is the one whose error shape its clients understand."""

    bridged: tuple[Route, ...]
    passed_through: tuple[Route, ...] = ()


def provider_blueprint(gateway: Gateway, provider: Provider, routes: Routes) -> Blueprint:
    blueprint = Blueprint(f"provider-{provider.name}", __name__, url_prefix=f"/{provider.name}")
    blueprint.add_url_rule("", "warm_up", warm_up, methods=["GET", "HEAD"], strict_slashes=False)
    blueprint.add_url_rule("/api/hello", "hello", warm_up, methods=["GET", "HEAD"])
    for number, (path, protocol) in enumerate(routes.bridged):
        view = bridged(gateway, provider, protocol, path)
        blueprint.add_url_rule(
            path,
            f"bridged-{number}",
            view,
            methods=["POST"],
            strict_slashes=False,
            provide_automatic_options=False,
        )
    for number, (path, protocol) in enumerate(routes.passed_through):
        forward = passed_through(gateway, provider, protocol)
        blueprint.add_url_rule(
            path, f"passed-{number}", forward, methods=ANY_METHOD, provide_automatic_options=False
        )
    return blueprint


def warm_up() -> Response:
    """What clients ask before their first request, to open a connection."""
    return Response(status=200)
