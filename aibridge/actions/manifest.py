"""What may stand in the front matter of an action: its keys, their types, and how they fit together.

Pure models. Whether hosts are allowed, secrets exist and functions can be imported is `store.py`'s business. The
schema is closed: a key that is not known is an error. No message repeats a value of the file, as that might be a
secret in the wrong place.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    field_validator,
    model_validator,
)

from aibridge.actions.secrets import is_reference
from aibridge.settings import HeaderName

SEMANTIC_VERSION = (  # semver.org's own expression
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}

# Scheme, host and port are constants, so that no argument chooses who is called; a user and password would be a
# literal secret; fragments are not sent.
_URL = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\s?#\\\x00-\x1f\x7f]*)?"
    r"(?:\?[^\s#\\\x00-\x1f\x7f]*)?"
)

# Headers that belong to HTTP's framing or to the URL, and those that carry nothing but secrets.
_FRAMING = {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
_CREDENTIAL = {"authorization", "proxy-authorization", "x-api-key", "api-key"}

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank")
    return value


def _plain(value: Any) -> Any:
    """A value that JSON can say: TOML's dates, times and infinite numbers are none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("holds a date, a time or a number that JSON cannot say") from None
    return value


def _single_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("holds a line break or another control character")
    return value


def _constant(value: str) -> str:
    if "${args." in value:
        raise ValueError("cannot refer to an argument")
    return value


def _constant_or_secret(value: str) -> str:
    is_reference(value)
    return _constant(value)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


NotBlank = Annotated[str, AfterValidator(_not_blank)]
Plain = Annotated[Any, AfterValidator(_plain)]
SingleLine = Annotated[str, AfterValidator(_single_line)]
Constant = Annotated[str, AfterValidator(_constant)]
EnvironmentValue = Annotated[str, AfterValidator(_constant_or_secret)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Type = Literal["string", "integer", "number", "boolean", "array", "object"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Closed(BaseModel):
    """Keys that are not known are errors, and nothing is converted: TOML has types of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def is_of_type(value: Any, name: str) -> bool:
    """Whether a value has the JSON type of that name. (Python's True is an int, JSON's is not.)"""
    return isinstance(value, TYPES[name]) and isinstance(value, bool) == (name == "boolean")


class Input(Closed):
    """A parameter that the model fills in. `default` is what an optional one is when left out; without it such an
    input is absent."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: Type
    description: NotBlank
    required: bool = True
    enum: Annotated[tuple[Plain, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    items_type: Literal["string", "integer", "number", "boolean", "object"] | None = None
    default: Plain = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values = (*(self.enum or ()), *([] if self.default is None else [self.default]))
        problems = {
            "items_type is only for type array": self.items_type and self.type != "array",
            "default is only for required = false": self.default is not None and self.required,
            f"enum and default must be of type {self.type}": not all(map(self._takes, values)),
            "default is none of enum": self.enum and self.default not in (None, *self.enum),
        }
        for problem, holds in problems.items():
            if holds:
                raise ValueError(problem)
        return self

    def _takes(self, value: Any) -> bool:
        if not is_of_type(value, self.type):
            return False
        return self.items_type is None or all(is_of_type(item, self.items_type) for item in value)

    def schema_of(self) -> dict[str, Any]:
        """Its JSON Schema."""
        schema: dict[str, Any] = {"type": self.type, "description": self.description}
        if self.enum:
            schema["enum"] = list(self.enum)
        if self.items_type:
            schema["items"] = {"type": self.items_type}
        if self.default is not None:
            schema["default"] = self.default
        return schema


class Auth(Closed):
    """A secret for a header, by reference only. `prefix` None: `Bearer ` for Authorization, nothing for others."""

    env: str | None = Field(None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    file: NotBlank | None = None
    header: HeaderName = "Authorization"
    prefix: SingleLine | None = None

    @model_validator(mode="after")
    def _names_one_secret(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("needs either env or file, the place of the secret")
        return self

    @property
    def reference(self) -> str:
        return f"env:{self.env}" if self.env else f"file:{self.file}"

    @property
    def scheme(self) -> str:
        """What stands before the secret in the header."""
        if self.prefix is not None:
            return self.prefix
        return "Bearer " if self.header.lower() == "authorization" else ""


class HttpRun(Closed):
    """A request. Arguments go into the URL's path and query, percent-encoded, into headers and the body."""

    kind: Literal["http"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str
    query: dict[str, Plain] = {}
    json_: Plain = Field(None, alias="json")
    body: str | None = None
    headers: dict[HeaderName, SingleLine] = {}
    auth: Auth | None = None

    @field_validator("url")
    @classmethod
    def _has_a_constant_host(cls, value: str) -> str:
        if not _URL.fullmatch(value):
            raise ValueError(
                "must be http:// or https:// with a host that is no reference, without user, password or fragment"
            )
        try:
            valid_port = urlsplit(value).port != 0
        except ValueError:
            valid_port = False
        if not valid_port:
            raise ValueError("has no valid port")
        return value

    @field_validator("headers")
    @classmethod
    def _headers_are_ours_to_set(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _FRAMING:
                raise ValueError(f"{name} cannot be set")
            if not is_reference(value) and name.lower() in _CREDENTIAL:
                raise ValueError(f"{name} must be env:NAME or file:/path, or stand in auth")
        return headers

    @field_validator("auth", mode="before")
    @classmethod
    def _auth_is_a_table(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('must be a table such as { env = "NAME" }, never the secret itself')
        return value

    @model_validator(mode="after")
    def _has_one_body(self) -> Self:
        if self.json_ is not None and self.body is not None:
            raise ValueError("has both json and body")
        return self

    def templates(self) -> dict[str, Any]:
        """What may refer to arguments, by key. Headers that stand for secrets are not looked at."""
        headers = {name: value for name, value in self.headers.items() if not is_reference(value)}
        return {"url": self.url, "query": self.query, "json": self.json_, "body": self.body, "headers": headers}

    def secrets(self) -> list[str]:
        named = [value for value in self.headers.values() if is_reference(value)]
        return [*named, self.auth.reference] if self.auth else named


class CommandRun(Closed):
    """A program with its arguments, started without a shell. `cwd` is relative to the folder of the actions."""

    kind: Literal["command"]
    argv: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    env: dict[EnvironmentName, EnvironmentValue] = {}
    cwd: Constant = "."
    stdin: Annotated[str | dict[str, Plain], Field(union_mode="left_to_right")] | None = None

    @field_validator("argv")
    @classmethod
    def _program_is_a_constant(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        _constant(_not_blank(argv[0]))
        return argv

    def templates(self) -> dict[str, Any]:
        return {"argv": self.argv, "stdin": self.stdin}

    def secrets(self) -> list[str]:
        return [value for value in self.env.values() if is_reference(value)]


class PythonRun(Closed):
    """A function of the operator's, called with the inputs as keyword arguments."""

    kind: Literal["python"]
    call: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")

    def templates(self) -> dict[str, Any]:
        return {}

    def secrets(self) -> list[str]:
        return []


Run = Annotated[HttpRun | CommandRun | PythonRun, Discriminator("kind")]


class Manifest(Closed):
    """The front matter. `timeout`: seconds, None: the settings' own. `max_output_bytes`: of the result's text."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,56}$")
    version: str = Field(pattern=SEMANTIC_VERSION)
    description_limit: int = Field(2000, ge=1)
    enabled: bool = True
    read_only: bool = False
    idempotent: bool = False
    timeout: Seconds | None = None
    max_output_bytes: int = Field(65536, ge=1)
    inputs: Annotated[tuple[Input, ...], BeforeValidator(_as_tuple)] = ()
    run: Run

    @field_validator("inputs")
    @classmethod
    def _inputs_differ(cls, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
        names = [declared.name for declared in inputs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two inputs are called {name}")
        return inputs

    def schema_of_arguments(self) -> dict[str, Any]:
        """The JSON Schema that the model is shown, and that its arguments are checked against."""
        required = [declared.name for declared in self.inputs if declared.required]
        return {
            "type": "object",
            "properties": {declared.name: declared.schema_of() for declared in self.inputs},
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The declared inputs that were given or have a default; whatever else was given is not looked at."""
        defaults = {declared.name: declared.default for declared in self.inputs if declared.default is not None}
        names = {declared.name for declared in self.inputs}
        return defaults | {name: value for name, value in given.items() if name in names}
