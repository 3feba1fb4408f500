"""The results as Markdown: a row per target, and what lies behind it. Pure; knows no clock and no file."""

import re
from collections.abc import Callable, Sequence

from bench.results import Results
from bench.targets import SUBJECT, TARGETS, Condition, Figure, Target

NAMES = {"direct": "no gateway", "ours": "aibridge", "litellm": "LiteLLM", "portkey": "Portkey"}
VERDICTS = {True: "yes", False: "**no**", None: "not measured"}
UNKNOWN = "-"
MARKED = re.compile(r"(<!-- results -->\n).*(<!-- end of results -->)", re.DOTALL)

Column = tuple[str, Callable[[Results, str], str]]  # heading, and what it says of a system


def report(results: Results) -> str:
    """What was measured; of a part of a run, that part."""
    found = {"Targets": targets(results)} | {heading: by_system(results, columns) for heading, columns in TABLES}
    return "\n\n".join(f"### {heading}\n\n{text}" for heading, text in found.items() if text)


def replaced(document: str, between: str) -> str:
    """The document with something else between its markers."""
    if not MARKED.search(document):
        raise ValueError("the document has no place for results")
    return MARKED.sub(lambda found: f"{found[1]}\n{between.strip()}\n\n{found[2]}", document)


def name_of(system: str) -> str:
    """A system as people call it."""
    first, _, rest = system.partition("-")
    name = NAMES.get(first, first)
    return f"{name}, {rest}" if rest else name


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def amount(value: float | None) -> str:
    """A figure with as many digits as say something."""
    if value is None:
        return UNKNOWN
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def multiple(ratio: float) -> str:
    """A ratio as people say it: 1/12 or 40x."""
    return f"1/{amount(1 / ratio)}" if 0 < ratio < 0.95 else f"{amount(ratio)}x"


# Targets


def targets(results: Results) -> str:
    headings = ("", "target", "measured", "met")
    rows = [
        (target.told, _wanted(target), _measured(target, results), VERDICTS[target.met(results, SUBJECT)])
        for target in TARGETS
        if any(condition.figure.of(results, SUBJECT) is not None for condition in target.conditions)
    ]
    return table(headings, rows)


def _wanted(target: Target) -> str:
    return ", ".join(
        f"{'≥' if condition.at_least else '≤'} {_said(condition, condition.limit)}"
        for condition in target.conditions
    )


def _measured(target: Target, results: Results) -> str:
    """Each figure once, and what it is of others."""
    absolute: dict[Figure, str] = {}
    ratios = []
    for condition in target.conditions:
        value = condition.figure.of(results, SUBJECT)
        if value is not None:
            absolute[condition.figure] = f"{amount(value)} {condition.figure.unit}"
        ratio = condition.value(results, SUBJECT)
        if condition.of:
            ratios.append(UNKNOWN if ratio is None else _said(condition, ratio))
    told = ", ".join(absolute.values()) or UNKNOWN
    return f"{told}: {', '.join(ratios)}" if ratios else told


def _said(condition: Condition, value: float) -> str:
    if not condition.of:
        return f"{amount(value)} {condition.figure.unit}"
    reference = condition.reference
    other = name_of(condition.of)
    if condition.of == SUBJECT and reference is not None:
        other = "later ones" if reference.scenario == condition.figure.scenario else "without"
    return f"{multiple(value)} {other}"


# What lies behind them: a row per system


def by_system(results: Results, columns: Sequence[Column]) -> str:
    """Systems and columns of which nothing is known are left out."""
    cells = {system: [cell(results, system) for _, cell in columns] for system in results.systems()}
    known = [number for number in range(len(columns)) if any(row[number] != UNKNOWN for row in cells.values())]
    rows = [(name_of(system), *(row[number] for number in known)) for system, row in cells.items()]
    told = [row for row in rows if set(row[1:]) - {UNKNOWN}]
    return table(("", *(columns[number][0] for number in known)), told)


def plain(scenario: str, name: str, over: str = "") -> Callable[[Results, str], str]:
    figure = Figure(scenario, name, over=over)
    return lambda results, system: amount(figure.of(results, system))


def compared(scenario: str, name: str) -> Callable[[Results, str], str]:
    """With what it is of nginx and of LiteLLM."""
    figure = Figure(scenario, name)

    def cell(results: Results, system: str) -> str:
        value = figure.of(results, system)
        others = [figure.of(results, other) for other in ("nginx", "litellm")]
        if value is None or system in ("direct", "nginx", "litellm"):
            return amount(value)
        return f"{amount(value)} ({', '.join(multiple(value / other) if other else UNKNOWN for other in others)})"

    return cell


def pair(scenario: str, first: str, second: str, over: str = "") -> Callable[[Results, str], str]:
    one, other = plain(scenario, first, over), plain(scenario, second, over)

    def cell(results: Results, system: str) -> str:
        cells = one(results, system), other(results, system)
        return UNKNOWN if UNKNOWN in cells else " / ".join(cells)

    return cell


REQUEST, EVENT, RATE = "cpu_ms_per_request", "cpu_us_per_event", "requests_per_second"

TABLES: list[tuple[str, list[Column]]] = [
    (
        "Blocking requests of 20 KB: CPU in ms (x nginx, of LiteLLM)",
        [
            ("1 at a time", plain("b1", REQUEST)),
            ("16 at once", compared("b16", REQUEST)),
            ("64 at once", plain("b64", REQUEST)),
            ("Chat Completions, 16", plain("b16-chat", REQUEST)),
            ("Responses, 16", plain("b16-responses", REQUEST)),
            ("TLS to the provider, 16", plain("b16-tls", REQUEST)),
            ("requests/s, 16", plain("b16", RATE)),
            ("added latency p50 in ms, 1", plain("b1", "latency_p50_ms", over="direct")),
        ],
    ),
    (
        "By the size of the request, 16 at once: CPU in ms",
        [
            ("2 KB", plain("b16-2k", REQUEST)),
            ("20 KB", plain("b16", REQUEST)),
            ("100 KB", plain("b16-100k", REQUEST)),
            ("400 KB", compared("b16-400k", REQUEST)),
            ("1 MB", plain("b16-1m", REQUEST)),
        ],
    ),
    (
        "Streams, an event every 10 ms: CPU per event in us (x nginx, of LiteLLM)",
        [
            ("4 streams", plain("s4", EVENT)),
            ("32 streams", compared("s32", EVENT)),
            ("100 streams", plain("s100", EVENT)),
            ("Chat Completions, 32", compared("s32-chat", EVENT)),
            ("Responses, 32", plain("s32-responses", EVENT)),
            ("TLS to the provider, 32", plain("s32-tls", EVENT)),
            ("tools put in, 32", plain("s32-tools", EVENT)),
            ("added delay p50 / p99 in ms, 32", pair("s32", "delay_p50_ms", "delay_p99_ms", over="direct")),
        ],
    ),
    (
        "16 streams while 8 connections ask blocking requests as fast as they can",
        [
            ("delay p50 / p99 of an event in ms", pair("mixed", "delay_p50_ms", "delay_p99_ms")),
            ("blocking requests/s", plain("mixed", "beside_per_second")),
        ],
    ),
    (
        "1,000 open streams, an event per second each",
        [
            ("open", plain("idle", "open")),
            ("KiB each", plain("idle", "kib_per_stream")),
            ("threads", plain("idle", "threads")),
            ("% of a core", plain("idle", "core_percent")),
            ("delay p50 / p99 in ms", pair("idle", "delay_p50_ms", "delay_p99_ms")),
            ("first byte p50 in ms", plain("idle", "first_byte_p50_ms")),
        ],
    ),
    (
        "Clients that leave; the start; memory",
        [
            ("s until the last of 50 is closed, events flow", plain("leave", "last_seconds")),
            ("silent streams", plain("leave-silent", "last_seconds")),
            ("first request / later ones in ms", pair("first", "first_ms", "later_ms")),
            ("MiB at rest, worker / all processes", pair("rest", "worker_mib", "tree_mib")),
        ],
    ),
    (
        "One and two worker processes on this machine's cores",
        [
            ("requests/s, 1", plain("b16", RATE)),
            ("2", plain("b16-2-workers", RATE)),
            ("CPU ms per request, 1", plain("b16", REQUEST)),
            ("2", plain("b16-2-workers", REQUEST)),
            ("CPU us per event, 1", plain("s32", EVENT)),
            ("2", plain("s32-2-workers", EVENT)),
        ],
    ),
]
