"""What load balancers and supervisors ask, and what clients ask to warm up."""

import orjson
from flask import Blueprint, Response

from aibridge.interception.gateway import Gateway
from aibridge.web.routes import warm_up


def health_blueprint(gateway: Gateway) -> Blueprint:
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> Response:
        return _json(200, {"status": "ok"})

    @blueprint.get("/readyz")
    def readyz() -> Response:
        gateway.start()
        reasons = gateway.unready()
        tools = gateway.toolbelt.status()  # told, but no reason: a tool that is down costs requests nothing
        if reasons:
            return _json(503, {"status": "not ready", "reasons": reasons, **tools})
        return _json(200, {"status": "ready", "providers": sorted(gateway.providers), **tools})

    blueprint.add_url_rule("/", "warm_up", warm_up, methods=["GET", "HEAD"])
    blueprint.add_url_rule("/api/hello", "hello", warm_up, methods=["GET", "HEAD"])
    return blueprint


def _json(status: int, value: object) -> Response:
    return Response(orjson.dumps(value), status, content_type="application/json")
