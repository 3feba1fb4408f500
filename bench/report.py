"""The results as Markdown: a row per target, and what lies behind it. Pure; knows no clock and no file."""

from collections.abc import Callable, Sequence

from bench.rounds import Results
from bench.targets import EVENT, REQUEST, SUBJECT, TARGETS, Condition, Figure, Target

NAMES = {"direct": "no gateway", "ours": "aibridge", "litellm": "LiteLLM", "portkey": "Portkey"}
VERDICTS = {True: "yes", False: "**no**", None: "not measured"}

Column = tuple[str, Callable[[str], str]]  # heading, and a system's cell


def name_of(system: str) -> str:
    """A system as people call it."""
    first, _, rest = system.partition("-")
    name = NAMES.get(first, first)
    return f"{name}, {rest}" if rest else name


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def amount(value: float | None) -> str:
    """A figure with as many digits as say something."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:,.{digits}f}"


def multiple(value: float) -> str:
    """A ratio as people say it: 1/12 or 40x."""
    return f"1/{amount(1 / value).removesuffix('.00')}" if 0 < value < 0.95 else f"{amount(value).removesuffix('.00')}x"


# --- targets ---------------------------------------------------------------------------------------------------------


def targets(results: Results, system: str = SUBJECT) -> str:
    rows = [
        (target.told, _wanted(target), _measured(target, results, system), VERDICTS[target.met(results, system)])
        for target in TARGETS
    ]
    return table(("", "target", f"measured ({name_of(system)})", "met"), rows)


def _wanted(target: Target) -> str:
    return ", ".join(
        f"{'at least' if condition.at_least else '≤'} {_said(condition, condition.limit)}"
        for condition in target.conditions
    )


def _measured(target: Target, results: Results, system: str) -> str:
    found = []
    for condition in target.conditions:
        value = condition.value(results, system)
        found.append("-" if value is None else _said(condition, value))
    return ", ".join(found)


def _said(condition: Condition, value: float) -> str:
    if not condition.of:
        return f"{amount(value).removesuffix('.00')} {condition.unit}"
    other = "without" if condition.of == SUBJECT else name_of(condition.of)
    return f"{multiple(value)} {other}"
