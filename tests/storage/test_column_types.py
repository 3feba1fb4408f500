"""What strangers wrote is stored as it came, as far as a database can hold it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from aibridge.errors import RecordingError
from aibridge.storage.column_types import LARGEST_INTEGER, json_text
from aibridge.storage.recorder import SqlRecorder
from tests.storage.conftest import Stored
from tests.storage.samples import prompt, started, token_usage


def test_texts_come_back_as_they_were(recorder: SqlRecorder, stored: Stored) -> None:
    text = "Grüße 👋 \\ ' \" % :name ?\r\n\t\x1b[0m"
    recorder.record([prompt(started(), text)])
    assert stored.rows("user_prompts")[0]["prompt"] == text


@pytest.mark.parametrize(("text", "kept"), [("a\0b", "a\ufffdb"), ("a\ud800b", "a?b"), ("ü\0\udfff", "ü\ufffd?")])
def test_what_no_database_holds_is_replaced(recorder: SqlRecorder, stored: Stored, text: str, kept: str) -> None:
    interception = started(metadata={text: [text, {"deep": text}]})
    recorder.record([interception, prompt(interception, text)])
    assert stored.rows("user_prompts")[0]["prompt"] == kept
    assert stored.interception(interception.id)["metadata"] == {kept: [kept, {"deep": kept}]}


def test_absurd_numbers_do_not_lose_the_record(recorder: SqlRecorder, stored: Stored) -> None:
    recorder.record([token_usage(started(), input_tokens=2**80, output_tokens=-(2**80))])
    (row,) = stored.rows("token_usages")
    assert (row["input_tokens"], row["output_tokens"]) == (LARGEST_INTEGER, -LARGEST_INTEGER)


def test_times_are_utc_whatever_zone_they_came_in(recorder: SqlRecorder, stored: Stored) -> None:
    interception = started(started_at=datetime(2026, 7, 1, 1, 30, 0, 123456, timezone(timedelta(hours=2))))
    recorder.record([interception])
    row = stored.interception(interception.id)
    assert row["started_at"] == datetime(2026, 6, 30, 23, 30, 0, 123456, UTC)
    assert row["started_at"].tzinfo is UTC
    assert row["ended_at"] is None


def test_a_time_without_zone_is_refused(recorder: SqlRecorder) -> None:
    with pytest.raises(RecordingError, match="without a time zone"):
        recorder.record([started(started_at=datetime(2026, 7, 1))])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
        ({"escaped": "\\u0000"}, {"escaped": "\\u0000"}),
        ({"big": 2**70, "when": {1}, 3: (1, 2)}, {"big": 2**70, "when": "{1}", "3": [1, 2]}),
        ({"nan": float("nan"), "key": {4: 1}}, {"nan": None, "key": {"4": 1}}),
    ],
)
def test_json_takes_everything(value: Any, kept: Any) -> None:
    assert json.loads(json_text(value)) == kept


def test_json_is_compact_and_plain() -> None:
    assert json_text({"a": "ü"}) == orjson.dumps({"a": "ü"}).decode() == '{"a":"ü"}'
