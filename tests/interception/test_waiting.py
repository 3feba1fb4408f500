"""Questions that may never be answered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from aibridge.interception.waiting import Patience


def test_nobody_waits_for_long_and_the_question_is_put_once() -> None:
    answer, asked = Event(), []

    def question() -> str:
        asked.append(1)
        assert answer.wait(5)
        return "at last"

    patience = Patience(question, 0.02, "no answer")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: patience(), range(4))) == {"no answer"}
    assert len(asked) == 1
    answer.set()
    while (told := patience()) == "no answer":
        pass
    assert told == "at last"


def test_it_is_put_anew_every_time_and_its_failure_is_told() -> None:
    answers: Iterator[int] = iter([1, 2])
    patience = Patience(lambda: 1 // (2 - next(answers)), 5, 0)
    assert patience() == 1
    with pytest.raises(ZeroDivisionError):
        patience()
