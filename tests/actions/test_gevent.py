"""Commands and requests in a process that gevent has patched: they work, they end, and they block nobody."""

import subprocess
import sys
from pathlib import Path

from tests.actions.samples import document
from tests.fake_provider.server import FakeProvider, Received, Reply

ROOT = Path(__file__).parents[2]

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import sys, threading, time
from pathlib import Path
from aibridge.interception.toolbox import ToolFailed
from tests.actions.samples import Workshop

workshop = Workshop(Path(sys.argv[1]))
begin = time.monotonic()
texts = {}
ticks = 0

def call(name):
    try:
        texts[name] = workshop.text(tool=name, timeout=1.5)
    except ToolFailed as failure:
        texts[name] = str(failure)

threads = [threading.Thread(target=call, args=(name,)) for name in ("slow", "large", "stuck", "http", "drip")]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    ticks += 1
    time.sleep(0.01)
print(texts["slow"].strip(), len(texts["large"]), texts["stuck"], texts["http"], texts["drip"], sep="|")
print(ticks > 50, time.monotonic() - begin < 4)
"""


def replies(request: Received) -> Reply:
    if request.path == "/drip":
        return Reply(body=[b"x", 0.1] * 1000, framing="chunked")
    return Reply(200, (("content-type", "text/plain"),), (b"answered",))


def test_under_gevent(tmp_path: Path, server: FakeProvider) -> None:
    server.always(replies)
    actions = {
        "slow": 'kind = "command"\nargv = ["sh", "-c", "sleep 0.5; cat"]\nstdin = "done"',
        "large": 'kind = "command"\nargv = ["sh", "-c", "head -c 5000000 /dev/zero | tr \'\\\\0\' x"]',
        "stuck": """kind = "command"\nargv = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]""",
        "http": f'kind = "http"\nurl = "{server.url}/"',
        "drip": f'kind = "http"\nurl = "{server.url}/drip"',
    }
    for name, run in actions.items():
        (tmp_path / f"{name}.md").write_text(document(run, name=name))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *_, texts, times = done.stdout.splitlines()
    cut = 65536 + len("\n[cut: the first 65536 of at least 5000000 bytes]")
    slow, large, stuck, http, drip = texts.split("|")
    assert (slow, int(large), http) == ("done", cut, "answered")
    assert stuck.startswith("timed out after 1.")
    assert drip.startswith("timed out after 1.")
    assert times == "True True"
    (dripped,) = (request for request in server.received if request.path == "/drip")
    assert dripped.gone.wait(5)
