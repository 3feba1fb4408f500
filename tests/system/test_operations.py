"""What clients and platforms ask besides: warm-ups, health, starting and stopping (product.md 3 to 5)."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
from anthropic import Anthropic

from tests.fake_provider.conversations import text
from tests.system.client import eventually
from tests.system.conftest import Gateways
from tests.system.gateway import CENTRAL_KEY, Gateway, Setup

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("HEAD", "/"),
        ("HEAD", "/anthropic"),
        ("HEAD", "/anthropic/"),
        ("GET", "/api/hello"),
        ("GET", "/anthropic/api/hello"),
    ],
)
def test_warm_ups_get_an_empty_200(gateway: Gateway, method: str, target: str) -> None:
    with gateway.request(method, target) as answer:
        answer.read()

    assert (answer.status, bytes(answer.body)) == (200, b"")
    assert gateway.provider.received == []


@pytest.mark.parametrize("target", ["/healthz", "/readyz"])
def test_health(gateway: Gateway, target: str) -> None:
    with gateway.get(target) as answer:
        assert answer.read().status == 200


def test_readiness_wants_the_current_schema(gateway: Gateway) -> None:
    with closing(gateway.connect()) as connection:
        (current,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = '0'")
        try:
            with gateway.get("/readyz") as answer:
                answer.read()
        finally:
            connection.execute("UPDATE alembic_version SET version_num = ?", (current,))

    assert answer.status == 503
    assert answer.body
    with gateway.get("/healthz") as health:
        assert health.read().status == 200
    eventually(gateway.is_ready)


# --- starting ----------------------------------------------------------------------------------------------------

GUNICORN = (str(Path(sys.executable).with_name("gunicorn")), "-c", "gunicorn.conf.py", "wsgi:app")


def test_gunicorn_as_on_a_platform(gateways: Gateways) -> None:
    dyno = (("DYNO", "web.1"),)
    gateway = gateways.own(Setup(command=GUNICORN, in_root=True, conventional=True, environment=dyno)).start()
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=True))
    assert "THE LEDGER WILL BE LOST" in gateway.log_text()

    with gateway.post(conversation.request(stream=True)) as answer:
        assert bytes(answer.read().body) == conversation.stream

    assert gateway.recorded(answer.interception_id).interception["status"] == "completed"
    assert gateway.stop() == 0


def test_gunicorn_with_options_of_its_own(gateways: Gateways) -> None:
    options = ("--preload", "--workers", "3")
    gateway = gateways.own(Setup(command=(*GUNICORN[:-1], *options, GUNICORN[-1]), in_root=True)).start()
    conversation = text()
    gateway.provider.always(conversation.reply(stream=True))

    for _ in range(12):
        with gateway.post(conversation.request(stream=True)) as answer:
            assert bytes(answer.read().body) == conversation.stream
        assert gateway.recorded(answer.interception_id).interception["status"] == "completed"

    assert gateway.stop() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this machine has one core")
@pytest.mark.parametrize(("kept", "cores"), [("true", 1), ("false", len(os.sched_getaffinity(0)))])
def test_a_worker_of_threads_keeps_to_one_core(
    gateways: Gateways, worker_class: str, kept: str, cores: int
) -> None:
    if worker_class == "gevent":
        pytest.skip("its work is one thread's")
    gateway = gateways.own(Setup(environment=(("AIBRIDGE_SERVER_CPU_AFFINITY", kept),))).start()
    conversation = text()
    gateway.provider.always(conversation.reply(stream=True))
    with gateway.post(conversation.request(stream=True)) as answer:
        answer.read()

    (worker,) = gateway.worker_pids()
    allowed = [os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{worker}/task")]
    assert len(allowed) > 2
    assert len(set.union(*allowed)) == cores
    assert len(os.sched_getaffinity(gateway.pid)) == len(os.sched_getaffinity(0))


def test_without_a_key_the_sandbox_answers(gateways: Gateways) -> None:
    gateway = gateways.own(
        Setup(conventional=True, environment=(("ANTHROPIC_BASE_URL", ""), ("ANTHROPIC_API_KEY", "")))
    ).start()
    client = Anthropic(base_url=f"{gateway.url}/sandbox", api_key="anything", max_retries=0)
    question = [{"role": "user", "content": "Grüezi, sandbox"}]

    message = client.messages.create(model="m", max_tokens=99, messages=question)  # type: ignore[arg-type]
    with client.messages.stream(model="m", max_tokens=99, messages=question) as stream:  # type: ignore[arg-type]
        streamed = stream.get_final_text()

    assert "Grüezi, sandbox" in message.content[0].text  # type: ignore[union-attr]
    assert "Grüezi, sandbox" in streamed
    assert [row["status"] for row in gateway.rows("interceptions")] == ["completed", "completed"]


def test_ctrl_c_stops_it_cleanly(gateways: Gateways) -> None:
    gateway = gateways.own().start()

    gateway.signal(signal.SIGINT)

    assert gateway.wait(8) == 0
    assert "Traceback" not in gateway.log_text()


def refuses_to_start(gateways: Gateways, setup: Setup) -> str:
    """What it says when it does not start."""
    gateway = gateways.own(setup)
    gateway.launch()
    assert gateway.wait() != 0
    assert "Traceback" not in gateway.log_text()
    assert CENTRAL_KEY not in gateway.log_text()
    return gateway.log_text()


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (Setup(environment=(("HOST", "0.0.0.0"),)), ("auth",)),
        (Setup(environment=(("PORT", "many"),)), ("port", "PORT")),
        (Setup(environment=(("AIBRIDGE_SERVER_PING_INTERVAL", "-1"),)), ("ping_interval",)),
        (Setup("[server]\nprot = 1\n"), ("server.prot", "aibridge.toml")),
        (Setup("[auth]\nmode = 'proxy'\n"), ("secret",)),
        (Setup("not toml"), ("aibridge.toml",)),
        (Setup('[[providers]]\nname = "A B"\ntype = "anthropic"\n'), ("name",)),
    ],
)
def test_wrong_settings_stop_the_start(gateways: Gateways, setup: Setup, words: tuple[str, ...]) -> None:
    said = refuses_to_start(gateways, setup)

    for word in words:
        assert word in said


def test_gunicorn_too_refuses_wrong_settings(gateways: Gateways) -> None:
    setup = Setup(command=GUNICORN, in_root=True, environment=(("HOST", "0.0.0.0"),))

    assert "auth" in refuses_to_start(gateways, setup)
