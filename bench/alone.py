"""What needs a system that has just been started and has nothing else to do: its first request, its memory at
rest, a thousand open streams, and clients that leave."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import uvloop

from bench import meters
from bench.driver import Load, drive
from bench.provider import control, seen
from bench.results import Sample, percentile
from bench.rounds import Run, say
from bench.scenarios import figures
from bench.systems.model import Options, Provider, Running, System

STREAMS = 1000
SETTLE_SECONDS = 1.0
LATE_SECONDS = 10.0  # that the last streams may take to begin
WATCHED_SECONDS = 6.0
MANY_THREADS = 1100  # for a gateway whose streams hold a thread each

LEAVING = 50
NEVER_SECONDS = 10.0  # after which a stream that is still open counts as never closed
SILENCE = 3600.0


def run_alone(run: Run, system: System) -> None:
    """Each round starts the system anew."""
    for number in range(run.rounds):
        with run.started(system, Options(), f"{system.name}-{number}") as running:
            if running is None:
                return
            try:
                _measure(run, system, running)
            except OSError as error:
                say(f"{system.name} COULD NOT BE MEASURED any further: {error}")
                return
        if system.threads and (run.results.median("idle", system.name, "open") or 0) < STREAMS:
            _with_many_threads(run, system, number)


def _measure(run: Run, system: System, running: Running) -> None:
    _add(run, "first", system.name, first_request(running))
    run.warm_up(running, ["messages"])
    time.sleep(1)
    _add(run, "rest", system.name, at_rest(running))
    _add(run, "leave", system.name, leave(running, run.provider, pace=2.0))
    _add(run, "leave-silent", system.name, leave(running, run.provider, pace=SILENCE))
    _add(run, "idle", system.name, open_streams(system, running, run.provider))  # some are exhausted afterwards


def _with_many_threads(run: Run, system: System, number: int) -> None:
    """What as many open streams cost where each holds a thread."""
    name = f"{system.name}-{MANY_THREADS} threads"
    with run.started(system, Options(threads=MANY_THREADS), f"{system.name}-{number}-threads") as running:
        if running is not None:
            run.warm_up(running, ["messages"])
            _add(run, "idle", name, open_streams(system, running, run.provider))


def _add(run: Run, scenario: str, system: str, sample: Sample) -> None:
    run.results.add(scenario, system, sample)
    told = " ".join(f"{name}={value:.3f}" for name, value in sample.items())
    say(f"{scenario:16} {system:14} {told}")


def first_request(running: Running) -> Sample:
    """The very first request since the start, and what later ones take."""
    request = running.request("messages", size=20_000, stream=False)
    first = drive(Load(running.port, request, 1, seconds=0.0001))
    drive(Load(running.port, request, 1, seconds=0.5))
    later = drive(Load(running.port, request, 1, seconds=1.0))
    return {
        "failed": float(first.failed + later.failed),
        "first_ms": percentile(first.whole, 0.5) / 1e6,
        "later_ms": percentile(later.whole, 0.5) / 1e6,
    }


def at_rest(running: Running) -> Sample:
    members = meters.tree(running.pid)
    return {
        "tree_mib": meters.memory_kib(running.pid) / 1024,
        "worker_mib": max(meters.process_memory_kib(member) for member in members) / 1024,
        "threads": float(meters.threads(running.pid)),
    }


def open_streams(system: System, running: Running, provider: Provider) -> Sample:
    """Many streams with an event per second each, opened one after the other and watched for a while."""
    opening = STREAMS * system.spacing
    events = int(opening + LATE_SECONDS + SETTLE_SECONDS + WATCHED_SECONDS + 3)
    control(provider.port, events=events, pace=1.0)
    request = running.request("messages", size=20_000, stream=True)
    load = Load(running.port, request, STREAMS, 0.0, events, system.spacing, patience=events + 30.0)
    memory = meters.memory_kib(running.pid)
    with ThreadPoolExecutor(1) as background:
        driving = background.submit(drive, load)
        time.sleep(opening)
        late = time.monotonic() + LATE_SECONDS
        while (opened := seen(provider.port).open) < STREAMS and time.monotonic() < late:
            time.sleep(0.5)
        time.sleep(SETTLE_SECONDS)
        memory = meters.memory_kib(running.pid) - memory
        used, began = meters.cpu_seconds(running.pid), time.monotonic()
        time.sleep(WATCHED_SECONDS)
        used, lasted = meters.cpu_seconds(running.pid) - used, time.monotonic() - began
        threads = meters.threads(running.pid)
        outcome = driving.result()
    told = figures(outcome, used)
    return {
        "open": float(opened),
        "failed": told["failed"],
        "cut": told["cut"],
        "kib_per_stream": memory / max(1, opened),
        "threads": float(threads),
        "core_percent": 100 * used / lasted,
        "delay_p50_ms": told.get("delay_p50_ms", 0.0),
        "delay_p99_ms": told.get("delay_p99_ms", 0.0),
        "first_byte_p50_ms": told.get("first_byte_p50_ms", 0.0),
    }


def leave(running: Running, provider: Provider, *, pace: float) -> Sample:
    """Clients close in the middle of their streams: how long until the provider's connections are closed."""
    _wait_until(lambda: not seen(provider.port).open)  # nothing of what was before is left
    control(provider.port, events=1000, pace=pace)
    request = running.request("messages", size=20_000, stream=True)
    opened, left = uvloop.run(_open_and_leave(running.port, request))
    _wait_until(lambda: len(seen(provider.port).left) >= opened)
    closed = sorted((moment - left) / 1e9 for moment in seen(provider.port).left if moment > left)
    times = [*closed, *[NEVER_SECONDS] * (opened - len(closed))]
    return {
        "opened": float(opened),
        "closed": float(len(closed)),
        "p50_seconds": median(times) if times else NEVER_SECONDS,
        "last_seconds": max(times, default=NEVER_SECONDS),
    }


def _wait_until(happened: Callable[[], bool]) -> None:
    """For as long as it is worth waiting for."""
    end = time.monotonic() + NEVER_SECONDS
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)


async def _open_and_leave(port: int, request: bytes) -> tuple[int, int]:
    """How many streams began, and the monotonic nanoseconds at which they were closed."""
    clients = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(LEAVING)))
    for _, writer in clients:
        writer.write(request)
    reading = [asyncio.ensure_future(reader.readuntil(b"message_start")) for reader, _ in clients]
    begun, others = await asyncio.wait(reading, timeout=20)
    for other in others:
        other.cancel()
    await asyncio.sleep(0.5)
    left = time.monotonic_ns()
    for _, writer in clients:
        writer.close()
    return len([task for task in begun if task.exception() is None]), left
