"""LiteLLM's proxy, with as little to do as it can be told to: no database, no tokens, no callbacks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.apis import MODELS, PATHS
from bench.processes import environment, free_port, running
from bench.systems.model import INSTALLED, Options, Provider, Route, Running

PROGRAM = INSTALLED / "litellm/bin/litellm"


@contextmanager
def litellm(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """It knows a model by a name of its own for each way to the provider."""
    port = free_port()
    models = [
        {
            "model_name": f"{model}{suffix}",
            "litellm_params": {
                "model": f"{vendor}/{model}",
                "api_base": provider.url(tls=tls) + base,
                "api_key": "sk-bench",
            },
        }
        for tls, suffix in ((False, ""), (True, "-tls"))
        for vendor, model, base in (("anthropic", MODELS["messages"], ""), ("openai", MODELS["chat"], "/v1"))
    ]
    settings = {"drop_params": True, "telemetry": False, "num_retries": 0}
    configuration = folder / "litellm.yaml"  # JSON is YAML
    configuration.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))
    variables = environment(
        HOME=str(folder),
        # without it, it does not start without a key
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_MODE="PRODUCTION",
        SSL_CERT_FILE=str(provider.certificates.authority),
    )
    command = (PROGRAM, "--config", configuration, "--host", "127.0.0.1")
    more = ("--port", str(port), "--num_workers", str(options.workers), "--telemetry", "False")
    ready = f"http://127.0.0.1:{port}/health/liveliness"
    with running((*command, *more), folder, variables, ready) as pid:
        yield Running(
            "litellm",
            pid,
            port,
            lambda api, tls: Route(PATHS[api], model=MODELS[api] + ("-tls" if tls else "")),
        )
