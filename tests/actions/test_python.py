"""python actions: functions that the operator listed, with the inputs as keywords."""

from pathlib import Path

import pytest

from aibridge.interception.toolbox import ToolFailed
from tests.actions.samples import PYTHON, Workshop, declared


def listing(folder: Path, *functions: str) -> Workshop:
    return Workshop(folder, python=functions)


def run(function: str = f"{PYTHON}:greet") -> str:
    return f'kind = "python"\ncall = "{function}"'


class TestCall:
    def test_inputs_become_keywords(self, workshop: Workshop) -> None:
        workshop.write(run(), inputs=declared("who") + declared("loud", "boolean", "required = false"))
        assert workshop.text(who="ü") == "hello ü"
        assert workshop.text(who="ü", loud=True, more="x") == "HELLO ü"

    @pytest.mark.parametrize(
        ("what", "text"),
        [
            ("none", "the action returned nothing"),
            ("table", '{"ä":[1,2.5,true,null]}'),
            ("bytes", "grün"),
            ("broken bytes", "a\ufffdb"),
            ("surrogate", "?"),
            ("much", "ü" * 50 + "\n[cut: the first 100 of at least 2000 bytes]"),
        ],
    )
    def test_results(self, tmp_path: Path, what: str, text: str) -> None:
        workshop = listing(tmp_path, f"{PYTHON}:give")
        workshop.write(run(f"{PYTHON}:give"), inputs=declared("what"), front="max_output_bytes = 100")
        assert workshop.text(what=what) == text

    @pytest.mark.parametrize("what", ["date", "nan"])
    def test_results_that_json_cannot_say(self, tmp_path: Path, what: str) -> None:
        workshop = listing(tmp_path, f"{PYTHON}:give")
        workshop.write(run(f"{PYTHON}:give"), inputs=declared("what"))
        with pytest.raises(ToolFailed, match="that JSON cannot say"):
            workshop.result(what=what)

    @pytest.mark.parametrize(
        ("how", "reason"), [("this", "ValueError: cannot do this"), ("exit", "SystemExit: 3")]
    )
    def test_exceptions(self, tmp_path: Path, how: str, reason: str) -> None:
        workshop = listing(tmp_path, f"{PYTHON}:fail")
        workshop.write(run(f"{PYTHON}:fail"), inputs=declared("how"))
        with pytest.raises(ToolFailed, match=reason) as caught:
            workshop.result(how=how)
        assert len(str(caught.value)) <= 2000

    def test_a_call_whose_time_is_over_does_not_begin(self, workshop: Workshop) -> None:
        workshop.write(run(), inputs=declared("who"))
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result(who="x", timeout=0)


class TestLoading:
    @pytest.mark.parametrize(
        ("function", "reason"),
        [
            ("no_such_module:x", "cannot be imported: ModuleNotFoundError"),
            (f"{PYTHON}:nothing", "cannot be imported: AttributeError"),
            ("tests.actions.broken_module:x", "cannot be imported: RuntimeError: it broke"),
            (f"{PYTHON}:NOT_A_FUNCTION", "is not a function"),
            (f"{PYTHON}:give", "does not fit the inputs: missing a required argument: 'what'"),
        ],
    )
    def test_what_cannot_be_called_is_the_files_problem(self, tmp_path: Path, function: str, reason: str) -> None:
        workshop = listing(tmp_path, function, f"{PYTHON}:greet")
        workshop.write(run(function), inputs=declared("who"))
        workshop.write(run(), file="other.md", name="other", inputs=declared("who"))
        (problem,) = workshop.problems()
        assert problem.startswith("sample.md:13: run.call: ")
        assert reason in problem
        assert [tool.name for tool in workshop.toolbox.tools()] == ["other"]

    def test_only_listed_functions_are_imported(self, workshop: Workshop) -> None:
        workshop.write(run("tests.actions.broken_module:x"))
        assert workshop.problems() == ["sample.md:8: run.call: the function is not in actions.python"]

    def test_a_parameter_of_the_function_that_may_be_left_out_must_have_a_default(
        self, workshop: Workshop
    ) -> None:
        workshop.write(run(), inputs=declared("who", more="required = false"))
        assert "missing a required argument: 'who'" in workshop.problems()[0]
        workshop.write(run(), inputs=declared("who", more='required = false\ndefault = "you"'))
        assert workshop.text() == "hello you"

    def test_a_function_that_does_not_tell_its_parameters(self, tmp_path: Path) -> None:
        workshop = listing(tmp_path, "builtins:dict")
        workshop.write(run("builtins:dict"), inputs=declared("a"))
        assert workshop.text(a="b") == '{"a":"b"}'
