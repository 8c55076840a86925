"""Working ahead in a thread changes nothing about what is given, and leaves nothing behind."""

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from ttvcli.core.video.ahead import ahead


def test_items_come_in_order_and_errors_where_they_happen() -> None:
    def failing() -> Iterator[int]:
        yield from range(20)
        raise ZeroDivisionError

    assert list(ahead(range(100), 3)) == list(range(100))
    items = ahead(failing(), 3)
    assert list(islice(items, 20)) == list(range(20))
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_no_more_is_held_than_was_allowed() -> None:
    made = []

    def counted() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = ahead(counted(), 4)
    assert next(items) == 0
    before = -1
    while len(made) > before:
        before = len(made)
        time.sleep(0.05)
    assert len(made) <= 5
    items.close()


def test_once_closed_nothing_is_taken_any_more() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield threading.active_count()

    threads = threading.active_count()
    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert threading.active_count() == threads
