"""The file: its delimiters, its closed schema, and errors that tell where."""

from typing import Any

import pytest

from aibridge.actions.front_matter import ManifestError, parse
from aibridge.actions.manifest import HttpRun
from tests.actions.samples import declared, document

RUN = 'kind = "command"\nargv = ["true"]'
HTTP = 'kind = "http"\nurl = "https://api.example.com/"'


def error(text: str) -> tuple[int | None, str]:
    with pytest.raises(ManifestError) as caught:
        parse(text)
    return caught.value.line, caught.value.message


def refusal(run: str = RUN, **parts: str) -> str:
    return error(document(run, **parts))[1]


class TestFile:
    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "\ufeff\n  \n" + text,
            lambda text: text.replace("\n", "\r\n"),
            lambda text: text.replace("+++", "  +++\t"),
            lambda text: text + "+++\nmore\n",
        ],
    )
    def test_byte_order_mark_blank_lines_and_blanks_are_no_problem(self, change: Any) -> None:
        parsed = parse(change(document(RUN)))
        assert parsed.manifest.name == "sample"
        assert parsed.description.startswith("Does it.")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", 1),
            ("\n\n", 1),
            ("\nname = 1\n+++\n", 2),
            ("# Title\n+++\n+++\n", 1),
            ("+++\nname = 'x'\n", 3),
            ("++++\n+++\n", 1),
        ],
    )
    def test_delimiters_are_needed(self, text: str, line: int) -> None:
        where, message = error(text)
        assert where == line
        assert "+++" in message

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("+++\nname = 'x'\nversion = = 1\n+++\nbody", 3),
            ('\n\n+++\nname = "x\n+++\nbody', 4),
            ("+++\nname = 'x'\nversion =\n+++\nbody", 3),
            ('+++\na = """\n+++\nbody', 3),
            ("+++\r\nname = 'x'\r\nversion = = 1\r\n+++\r\nbody", 3),
        ],
    )
    def test_toml_errors_name_the_line_of_the_file(self, text: str, line: int) -> None:
        where, message = error(text)
        assert where == line
        assert message.startswith("is not valid TOML")
        assert "line" not in message

    @pytest.mark.parametrize("body", ["", " \n\t\n", "# Only a title", "#", "\n# Title\n\n"])
    def test_a_description_is_needed(self, body: str) -> None:
        text = document(RUN, body=body)
        where, message = error(text)
        assert where == text.count("\n", 0, text.rindex("+++")) + 1
        assert "empty" in message

    @pytest.mark.parametrize(
        ("body", "description"),
        [
            ("# Title\n\nText\nmore", "Text\nmore"),
            ("\n\n#\tTitle\nText\n", "Text"),
            ("## Not a title\nText", "## Not a title\nText"),
            ("#hashtag\nText", "#hashtag\nText"),
            ("Text\n# Later", "Text\n# Later"),
        ],
    )
    def test_a_title_is_not_part_of_the_description(self, body: str, description: str) -> None:
        assert parse(document(RUN, body=body)).description == description

    def test_long_descriptions_are_cut_with_a_marker(self) -> None:
        assert parse(document(RUN, body="ü" * 2000)).description == "ü" * 2000
        assert parse(document(RUN, body="ü" * 2001)).description == "ü" * 2000 + (
            "\n[cut: the first 2000 of 2001 characters]"
        )
        assert parse(document(RUN, front="description_limit = 3", body="abcdef")).description.startswith(
            "abc\n[cut"
        )


class TestSchema:
    @pytest.mark.parametrize(
        ("parts", "named"),
        [
            ({"front": 'colour = "red"'}, "colour"),
            ({"front": 'description = "x"'}, "description"),
            ({"front": "[approval]\nrequired = true"}, "approval"),
            ({"inputs": declared("a", more='label = "x"')}, "inputs.0.label"),
            ({"run": RUN + "\nshell = true"}, "run.shell"),
            ({"run": RUN + '\nurl = "https://a.example/"'}, "run.url"),
            ({"run": HTTP + '\nauth = { env = "X", user = "me" }'}, "run.auth.user"),
            ({"run": HTTP + "\njson_ = 1"}, "run.json_"),
        ],
    )
    def test_unknown_keys_are_named(self, parts: dict[str, str], named: str) -> None:
        assert refusal(**parts) == f"{named}: is not a known key"

    def test_the_line_of_a_wrong_key_is_told(self) -> None:
        inputs = declared("one") + declared("two", kind="text")
        text = document(RUN, inputs=inputs)
        line, message = error(text)
        assert message.startswith("inputs.1.type: ")
        assert line == text[: text.index('type = "text"')].count("\n") + 1

    def test_a_missing_key_points_at_its_table(self) -> None:
        text = document('kind = "http"')
        line, message = error(text)
        assert message == "run.url: is missing"
        assert line == text[: text.index("[run]")].count("\n") + 1

    def test_all_that_is_wrong_is_told_at_once(self) -> None:
        message = refusal(front='timeout = 0\nenabled = "yes"')
        assert "timeout: " in message
        assert "enabled: " in message

    @pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 57])
    def test_names(self, name: str) -> None:
        assert parse(document(RUN, name=name)).manifest.name == name

    @pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a.b", "a b", "ä", "a" * 58, "a\\n"])
    def test_names_that_are_none(self, name: str) -> None:
        assert refusal(name=name).startswith("name: ")

    @pytest.mark.parametrize("version", ["0.0.0", "1.2.3-rc.1+build.7", "10.20.30"])
    def test_versions(self, version: str) -> None:
        assert parse(document(RUN).replace("1.0.0", version)).manifest.version == version

    @pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-01", "1.0.0 ", "\u0661.0.0"])
    def test_versions_that_are_none(self, version: str) -> None:
        assert error(document(RUN).replace("1.0.0", version))[1].startswith("version: ")

    @pytest.mark.parametrize(
        "front",
        ["timeout = inf", "timeout = -1", 'timeout = "5"', "max_output_bytes = 0", "description_limit = 0"],
    )
    def test_bounds(self, front: str) -> None:
        assert refusal(front=front).startswith(front.split(maxsplit=1)[0])

    def test_defaults(self) -> None:
        manifest = parse(document(RUN)).manifest
        assert (manifest.enabled, manifest.read_only, manifest.idempotent) == (True, False, False)
        assert (manifest.timeout, manifest.max_output_bytes) == (None, 65536)

    @pytest.mark.parametrize("run", ["", 'argv = ["x"]', 'kind = "shell"', 'kind = "python"\ncall = "os.system"'])
    def test_run_is_one_of_three_kinds(self, run: str) -> None:
        assert refusal(run).startswith("run")


class TestInputs:
    def test_the_schema_for_the_model(self) -> None:
        inputs = (
            declared("city", more='enum = ["Rom", "Köln"]')
            + declared("days", "integer", "required = false\ndefault = 3")
            + declared("tags", "array", 'items_type = "string"\nrequired = false')
        )
        assert parse(document(RUN, inputs=inputs)).manifest.schema_of_arguments() == {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "the city", "enum": ["Rom", "Köln"]},
                "days": {"type": "integer", "description": "the days", "default": 3},
                "tags": {"type": "array", "description": "the tags", "items": {"type": "string"}},
            },
            "required": ["city"],
            "additionalProperties": False,
        }

    def test_without_inputs_nothing_is_required(self) -> None:
        schema = parse(document(RUN)).manifest.schema_of_arguments()
        assert schema == {"type": "object", "properties": {}, "additionalProperties": False}

    @pytest.mark.parametrize(
        "inputs",
        [
            declared("Upper"),
            declared("1a"),
            declared("a-b"),
            declared("a") + declared("a"),
            declared("a", "text"),
            declared("a").replace("the a", " "),
            declared("a").replace('description = "the a"', ""),
            declared("a", more="enum = []"),
            declared("a", more="enum = [1]"),
            declared("a", "integer", "enum = [true]"),
            declared("a", "boolean", "enum = [1]"),
            declared("a", "number", "required = false\ndefault = true"),
            declared("a", "number", "enum = [nan]"),
            declared("a", more="enum = [2020-01-01]"),
            declared("a", more='default = "x"'),
            declared("a", more='required = false\nenum = ["x"]\ndefault = "y"'),
            declared("a", more='items_type = "string"'),
            declared("a", "array", 'items_type = "array"'),
            declared("a", "array", 'items_type = "integer"\nrequired = false\ndefault = ["x"]'),
            declared("a", "object", "required = false\ndefault = { when = 2020-01-01 }"),
        ],
    )
    def test_wrong_inputs(self, inputs: str) -> None:
        assert refusal(inputs=inputs).startswith("inputs")

    def test_declared_arguments_and_defaults_are_all_that_a_run_sees(self) -> None:
        inputs = declared("a") + declared("b", "integer", "required = false\ndefault = 0")
        inputs += declared("c", "boolean", "required = false\ndefault = false") + declared(
            "d", more="required = false"
        )
        manifest = parse(document(RUN, inputs=inputs)).manifest
        assert manifest.arguments({"a": "x", "c": True, "argv": ["rm"]}) == {"a": "x", "b": 0, "c": True}


class TestReferences:
    @pytest.mark.parametrize(
        ("key", "run"),
        [
            ("url", 'kind = "http"\nurl = "https://a.example/${args.x}"'),
            ("query", HTTP + '\nquery = { a = ["b", "${args.x}"] }'),
            ("json", HTTP + '\njson = { a = { b = [{ c = "d ${args.x}" }] } }'),
            ("body", HTTP + '\nbody = "${args.x}"'),
            ("headers", HTTP + '\nheaders = { X-A = "${args.x}" }'),
            ("argv", 'kind = "command"\nargv = ["echo", "${args.x}"]'),
            ("stdin", RUN + '\nstdin = "a ${args.x}"'),
            ("stdin", RUN + '\nstdin = { a = "${args.x}" }'),
        ],
    )
    def test_every_reference_names_a_declared_input(self, key: str, run: str) -> None:
        line, message = error(document(run, inputs=declared("y")))
        assert message == f"run.{key}: ${{args.x}} is no declared input"
        assert line is not None
        assert "${args.x}" in document(run, inputs=declared("y")).split("\n")[line - 1]
        assert parse(document(run, inputs=declared("x")))

    def test_a_mark_that_is_no_reference_has_a_line_too(self) -> None:
        line, message = error(document(RUN + '\nstdin = "${HOME}"'))
        assert "$${" in message
        assert line == 9

    @pytest.mark.parametrize(
        "run",
        [
            'kind = "command"\nargv = ["${args.x}"]',
            RUN + '\ncwd = "${args.x}"',
            RUN + '\nenv = { A = "${args.x}" }',
        ],
    )
    def test_program_folder_and_environment_are_constants(self, run: str) -> None:
        assert "cannot refer to an argument" in refusal(run, inputs=declared("x"))


class TestHttp:
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://a.example/",
            "HTTPS://a.example/",
            "https://${args.x}/",
            "https://${args.x}.a.example/",
            "https://a.example:${args.x}/",
            "https://a.example${args.x}/",
            "https://me:hush@a.example/",
            "https://a.example@b.example/",
            "https://a.example\\\\@b.example/",
            "https://a.example/#part",
            "https://a.example:0/",
            "https://a.example:99999/",
            "https:///path",
            "https://a.example/a b",
            "a.example",
        ],
    )
    def test_urls_have_a_constant_host(self, url: str) -> None:
        message = refusal(f'kind = "http"\nurl = "{url}"', inputs=declared("x"))
        assert message.startswith("run.url: ")
        assert "hush" not in message

    @pytest.mark.parametrize(
        "url", ["http://[::1]:8080/x?y=${args.x}", "https://a.example", "https://a.example?b=c"]
    )
    def test_urls(self, url: str) -> None:
        run = parse(document(f'kind = "http"\nurl = "{url}"', inputs=declared("x"))).manifest.run
        assert isinstance(run, HttpRun)
        assert run.url == url

    @pytest.mark.parametrize(
        "more",
        [
            'auth = "sk-hush"',
            'auth = { token = "sk-hush" }',
            'auth = { env = "sk-hush" }',
            'auth = { env = "A", file = "/sk-hush" }',
            'auth = { env = "A", prefix = "sk-hush\\r\\n" }',
            'auth = { env = "A", header = "sk-hush:" }',
            "auth = { }",
            'headers = { Authorization = "Bearer sk-hush" }',
            'headers = { X-API-Key = "sk-hush" }',
            'headers = { X-A = "env:sk-hush" }',
            'headers = { X-A = "file:" }',
            'headers = { X-A = "a\\r\\nX-B: sk-hush" }',
            'headers = { "X-A: sk-hush" = "b" }',
            'headers = { hOst = "sk-hush" }',
            'headers = { Content-Length = "1" }',
            'json = { a = 1 }\nbody = "x"',
            "json = { a = 2020-01-01 }",
            "query = { a = nan }",
            'method = "CONNECT"',
        ],
    )
    def test_what_is_refused_and_never_repeated(self, more: str) -> None:
        message = refusal(f"{HTTP}\n{more}")
        assert message.startswith("run.") or "both json and body" in message
        assert "sk-hush" not in message.replace("headers.X-A: sk-hush", "")


class TestCommand:
    @pytest.mark.parametrize(
        "run",
        [
            'kind = "command"\nargv = []',
            'kind = "command"\nargv = [" "]',
            'kind = "command"\nargv = "rm -rf /"',
            'kind = "command"\nargv = ["a", 1]',
            RUN + '\nenv = { "A=B" = "c" }',
            RUN + '\nenv = { A = "env:lower" }',
            RUN + "\nstdin = 5",
            RUN + "\nstdin = { a = 2020-01-01 }",
        ],
    )
    def test_what_is_refused(self, run: str) -> None:
        assert refusal(run).startswith("run.")
