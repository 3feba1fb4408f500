"""HTTP actions, over `requests`: one pool of connections, no redirects, no cookies, no .netrc.

`requests` bounds each wait for a socket, not the whole call, so the clock is looked at after every piece of a
body.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from email.message import Message
from typing import Any
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from aibridge.actions.hosts import allowed
from aibridge.actions.interpolation import Absence, Arguments, filled, filled_text, json_text, text
from aibridge.actions.manifest import CONTROL, HttpRun
from aibridge.actions.runners.call import Call
from aibridge.actions.runners.output import Head, Output
from aibridge.actions.runners.time_limit import TICK, TimeLimit
from aibridge.actions.secrets import Secrets, is_reference
from aibridge.interception.toolbox import ToolFailed
from aibridge.protocols.tools import IMAGE_TYPES, Image

CONNECT_TIMEOUT = 10.0  # seconds

_CHUNK = 65536


class HttpRunner:
    """Runs http actions over connections that it keeps. `allowed_hosts`: see settings.Actions."""

    def __init__(self, allowed_hosts: Sequence[str]) -> None:
        self._allowed_hosts = allowed_hosts
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=32))

    def close(self) -> None:
        self._session.close()

    def run(self, run: HttpRun, call: Call) -> Output:
        """Sends the request and reads the answer. Raises ToolFailed if there is none, or the limit is over."""
        request = prepared(run, call.arguments, call.secrets)
        host = urlsplit(str(request.url)).netloc
        if not allowed(str(request.url), self._allowed_hosts):
            raise ToolFailed(f"the host {host} is not in actions.allowed_hosts")
        try:
            return self._answer(request, call)
        except (requests.RequestException, HTTPError, OSError) as error:
            call.limit.check()
            raise ToolFailed(_reason(error, host)) from None

    def _answer(self, request: requests.PreparedRequest, call: Call) -> Output:
        """By the adapter, as Session.send reads a redirect's body whole, even of one that it does not follow."""
        url = str(request.url)
        settings: Any = self._session.merge_environment_settings(url, {}, True, None, None)
        left = max(call.limit.left(), TICK)  # zero is no timeout that it takes
        timeout = (min(CONNECT_TIMEOUT, left), left)
        response = self._session.get_adapter(url).send(request, timeout=timeout, **settings)
        try:
            return _output(response, call)
        finally:
            response.close()


def prepared(run: HttpRun, arguments: Arguments, secrets: Secrets) -> requests.PreparedRequest:
    """The request with arguments and secrets in it. Raises ToolFailed for arguments that have no place there."""
    body = _body(run, arguments)
    headers: dict[str, str | bytes] = {"User-Agent": "aibridge", "Accept": "*/*", "Accept-Encoding": "gzip"}
    if run.json_ is not None and body is not None:
        headers["Content-Type"] = "application/json"
    own = dict(_headers(run, arguments, secrets))
    replaced = {name.lower() for name in own}
    headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
    # Bytes, as http.client would take strings for latin-1.
    headers |= {name: value.encode() for name, value in own.items()}
    try:
        return requests.Request(run.method, _url(run, arguments), headers=headers, data=body).prepare()
    except (requests.RequestException, ValueError) as error:
        raise ToolFailed(f"the request cannot be made: {type(error).__name__}") from None


def _url(run: HttpRun, arguments: Arguments) -> str:
    template, _, query = run.url.partition("?")
    path = "/".join(_segment(segment, arguments) for segment in template.split("/"))
    pairs = [(name, value) for name, values in _query(run.query, arguments).items() for value in values]
    queries = [filled_text(query, arguments, _percent_encoded), urlencode(pairs, quote_via=quote, safe="")]
    return "?".join(part for part in (path, "&".join(filter(None, queries))) if part)


def _segment(template: str, arguments: Arguments) -> str:
    """One segment of the path. An argument can be nothing but a part of it: not a way to another folder."""
    segment = filled_text(template, arguments, _percent_encoded)
    if segment != template and unquote(segment) in (".", ".."):
        raise ToolFailed("an argument cannot be . or .. in a path")
    return segment


def _percent_encoded(value: Any) -> str:
    return quote(text(value), safe="")


def _query(table: Mapping[str, Any], arguments: Arguments) -> dict[str, list[str]]:
    """The values of each name; a list repeats its name."""
    values = {name: filled(value, arguments) for name, value in table.items()}
    return {
        name: [text(each) for each in (value if isinstance(value, list) else [value])]
        for name, value in values.items()
        if value is not Absence.ABSENT
    }


def _body(run: HttpRun, arguments: Arguments) -> bytes | None:
    if run.body is not None:
        return filled_text(run.body, arguments).encode()
    if run.json_ is None:
        return None
    value = filled(run.json_, arguments)
    return None if value is Absence.ABSENT else json_text(value).encode()


def _headers(run: HttpRun, arguments: Arguments, secrets: Secrets) -> Iterator[tuple[str, str]]:
    """Only what the author wrote can name a secret: an argument that spells `env:NAME` is sent as it is."""
    for name, template in run.headers.items():
        if is_reference(template):
            yield name, secrets.header(template)
            continue
        value = filled(template, arguments)
        if value is Absence.ABSENT:
            continue
        if CONTROL.search(text(value)):
            raise ToolFailed(f"the argument in the header {name} holds a line break or a control character")
        yield name, text(value).strip()
    if run.auth:
        yield run.auth.header, run.auth.scheme + secrets.header(run.auth.reference)


def _reason(error: Exception, host: str) -> str:
    """Why there was no answer. Not the error's own text, which may repeat what was sent."""
    match error:
        case requests.exceptions.SSLError():
            return f"the TLS connection to {host} failed"
        case requests.exceptions.ProxyError():
            return f"the proxy on the way to {host} failed"
        case requests.Timeout():
            return f"{host} did not answer in time"
        case requests.ConnectionError():
            return f"{host} could not be reached, or closed the connection"
    return f"the answer of {host} broke off or made no sense"


def _output(response: requests.Response, call: Call) -> Output:
    status = response.status_code
    if "location" in response.headers and 300 <= status < 400:
        return Output(introduction=_redirect(response), is_error=True)
    head = _read(response, call.max_output_bytes, call.limit)
    kind = Message()
    kind["content-type"] = response.headers.get("content-type", "text/plain")
    if 200 <= status < 300:
        return _content(head, kind, call.max_output_bytes)
    content = _content(head, kind, 0)
    introduction = f"HTTP status {status}\n{content.introduction}".strip()
    return replace(content, introduction=introduction, is_error=True)


def _redirect(response: requests.Response) -> str:
    try:
        host = urlsplit(urljoin(str(response.url), response.headers["location"])).netloc.rpartition("@")[2]
    except ValueError:
        host = "an invalid URL"
    return f"HTTP status {response.status_code}: a redirect to {host}, which is not followed"


def _read(response: requests.Response, size: int, limit: TimeLimit) -> Head:
    """The body's beginning, decompressed. Raises HTTPError if it breaks off, ToolFailed when the time is over."""
    head = Head(size)
    while not head.is_cut and (chunk := response.raw.read1(_CHUNK, decode_content=True)):
        head.feed(chunk)
        limit.check()
    return head


def _content(head: Head, kind: Message, largest_image: int) -> Output:
    media_type = kind.get_content_type()
    if media_type in IMAGE_TYPES and not head.is_cut:
        data = base64.b64encode(head.content()).decode()
        if len(data) <= largest_image:
            return Output(image=Image(media_type, data))
    if _is_text(head, media_type, kind):
        return Output(head.text(str(kind.get_param("charset", "utf-8"))), head.size, head.is_cut)
    return Output(introduction=f"[{media_type}, {'at least ' if head.is_cut else ''}{head.size} bytes, not shown]")


def _is_text(head: Head, media_type: str, kind: Message) -> bool:
    """What is called text, and what looks like it whatever it is called."""
    if media_type.startswith("text/") or media_type.endswith(("json", "xml", "yaml", "javascript")):
        return True
    if media_type in IMAGE_TYPES or b"\0" in head.content():
        return False
    return kind.get_param("charset") is not None or "\ufffd" not in head.text()
