"""The comparison of ledger and bill can fail: each way in which they may differ is told."""

import json
from pathlib import Path

import pytest

from aibridge.records import InterceptionStarted, TokenUsage, ToolUsage
from aibridge.storage.database import Database
from aibridge.storage.recorder import SqlRecorder
from tests.chaos.bill import Bill, Item
from tests.chaos.ledger import Ledger, spool_problems
from tests.fake_provider import Received
from tests.storage.samples import ended, started, token_usage, tool_usage


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/aibridge.db"
    Database(url).upgrade()
    return url


@pytest.fixture
def bill() -> Bill:
    """One request, "chaos-1", was answered once, with a call of a tool."""
    bill = Bill(seed=1)
    turns = [{"role": "user", "content": "chaos-1 calls bact_shout calls bmcp_absent"}]
    body = json.dumps({"messages": turns, "tools": [{"name": "bact_shout"}]}).encode()
    bill(Received("POST", "/v1/messages", (), 1, bytearray(body)))
    return bill


def paid(interception: InterceptionStarted, item: Item) -> TokenUsage:
    given, cached, made = item.tokens
    tokens = {"input_tokens": given, "cache_read_input_tokens": cached, "output_tokens": made}
    return token_usage(interception, provider_response_id=item.response_id, **tokens)


def called(interception: InterceptionStarted, item: Item) -> ToolUsage:
    (call,) = item.calls
    return tool_usage(interception, provider_response_id=item.response_id, provider_tool_call_id=call)


def test_a_ledger_that_is_the_bill(url: str, bill: Bill) -> None:
    request, (item,) = started(initiator_id="chaos-1"), bill.of("chaos-1")
    SqlRecorder(Database(url)).record([request, paid(request, item), called(request, item), ended(request)])
    assert Ledger(url).problems(bill, ["chaos-1"], ["chaos-2"]) == []


def test_a_call_that_was_lost(url: str, bill: Bill) -> None:
    request = started(initiator_id="chaos-1")
    SqlRecorder(Database(url)).record([request, paid(request, *bill.of("chaos-1")), ended(request)])
    (problem,) = Ledger(url).problems(bill, ["chaos-1"], [])
    assert "chaos-1: billed" in problem


def test_a_request_that_was_lost(url: str, bill: Bill) -> None:
    assert len(Ledger(url).problems(bill, ["chaos-1"], [])) == 2


def test_usage_that_was_lost_doubled_or_invented(url: str, bill: Bill) -> None:
    request, open_one = started(initiator_id="chaos-1"), started(initiator_id="chaos-2")
    item = Item("msg_99")
    usages = [paid(request, item), paid(request, item), paid(open_one, Item("msg_98"))]
    SqlRecorder(Database(url)).record([request, open_one, *usages, ended(request)])
    found = "\n".join(Ledger(url).problems(bill, ["chaos-1"], ["chaos-2"]))
    for words in ("chaos-2 is still open", "msg_99 was recorded 2 times", "chaos-1: billed", "never billed"):
        assert words in found


def test_what_waits_in_the_spool(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[]\n")
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "refused.log").touch()
    assert len(spool_problems(tmp_path)) == 2
