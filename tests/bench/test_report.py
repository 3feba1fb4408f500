"""What a run's figures become: verdicts, tables, a document."""

import pytest

from bench.report import amount, multiple, replaced, report
from bench.results import Results, percentile
from bench.targets import TARGETS, Condition, Figure, Target

CPU = Figure("b16", "cpu_ms_per_request", unit="ms")
TENTH = Target("cheap", (Condition(CPU, 1 / 10, "litellm"),))


def results(**systems: float) -> Results:
    """A run that measured the CPU of requests once."""
    found = Results()
    for system, value in systems.items():
        found.add("b16", system, {"cpu_ms_per_request": value})
    return found


def test_a_figure_is_the_median_of_its_rounds() -> None:
    found = results(ours=5)
    found.add("b16", "ours", {"cpu_ms_per_request": 1})
    found.add("b16", "ours", {"cpu_ms_per_request": 3})
    assert CPU.of(found, "ours") == 3
    assert found.best("b16", "ours", "cpu_ms_per_request") == 1


@pytest.mark.parametrize(("ours", "met"), [(1.0, True), (1.5, True), (1.6, False)])
def test_a_ratio_is_kept_or_not(ours: float, met: bool) -> None:
    assert TENTH.met(results(ours=ours, litellm=15), "ours") is met


def test_what_was_not_measured_is_neither_kept_nor_broken() -> None:
    assert TENTH.met(results(ours=1), "ours") is None
    assert TENTH.met(results(litellm=1), "ours") is None


def test_one_broken_condition_breaks_the_target_whatever_else_is_known() -> None:
    target = Target("cheap", (Condition(CPU, 45, "nginx"), Condition(CPU, 1 / 10, "litellm")))
    assert target.met(results(ours=10, litellm=15), "ours") is False


def test_a_target_can_ask_for_more() -> None:
    faster = Condition(Figure("b16", "cpu_ms_per_request"), 10, "litellm", at_least=True)
    assert faster.met(results(ours=100, litellm=10), "ours") is True
    assert faster.met(results(ours=99, litellm=10), "ours") is False


def test_what_is_added_is_over_the_direct_way() -> None:
    added = Figure("b16", "cpu_ms_per_request", over="direct")
    assert added.of(results(ours=3, direct=1), "ours") == 2
    assert added.of(results(ours=3), "ours") is None
    assert added.of(results(ours=1, direct=3), "ours") == 0


def test_with_tools_is_compared_with_without() -> None:
    found = results(ours=10)
    found.add("tools", "ours-tools", {"cpu_ms_per_request": 25})
    figure = Figure("tools", "cpu_ms_per_request", "-tools")
    assert Condition(figure, 2.3, "ours", CPU).value(found, "ours") == 2.5


def test_a_figure_can_be_a_multiple_of_another_scenario() -> None:
    found = results(ours=10)
    found.add("b16-tls", "ours", {"cpu_ms_per_request": 13})
    assert Figure("b16-tls", "cpu_ms_per_request", per="b16").of(found, "ours") == 1.3


def test_the_report_tells_what_was_measured_and_no_more() -> None:
    text = report(results(nginx=0.02, ours=1, litellm=12))
    assert "| ≤ 1/10 LiteLLM, ≤ 1/2 Portkey, ≤ 45x nginx | 1 ms: 1/12 LiteLLM, -, 50x nginx | **no** |" in text
    assert "|  | 16 at once |" in text
    assert "| aibridge | 1 (50x, 1/12) |" in text
    assert "Portkey |" not in text
    assert "streams" not in text


def test_the_report_of_a_whole_run_has_every_target() -> None:
    found = Results()
    for target in TARGETS:
        for condition in target.conditions:
            for figure in (condition.figure, condition.reference or condition.figure):
                found.add(figure.scenario, f"ours{figure.suffix}", {figure.name: 1})
                found.add(figure.scenario, "direct", {figure.name: 1})
                found.add(figure.per or figure.scenario, "ours", {figure.name: 1})
    assert all(f"| {target.told} |" in report(found) for target in TARGETS)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    document = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"
    once = replaced(document, r"new \1")
    assert once == "before\n<!-- results -->\n\nnew \\1\n\n<!-- end of results -->\nafter\n"
    assert replaced(once, r"new \1") == once
    with pytest.raises(ValueError, match="no place"):
        replaced("before after", "new")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0234, "0.023"), (0.5, "0.5"), (3.456, "3.46"), (34.56, "34.6"), (1234.5, "1,234")],
)
def test_figures_have_as_many_digits_as_say_something(value: float | None, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(("ratio", "text"), [(1 / 12, "1/12"), (45, "45x"), (0.97, "0.97x"), (0.5, "1/2")])
def test_ratios_read_as_people_say_them(ratio: float, text: str) -> None:
    assert multiple(ratio) == text


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(100)), 0.99) == 99
    assert percentile([], 0.5) == 0
