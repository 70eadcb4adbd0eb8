import threading

import pytest

from training.threads import first_here, in_order


def test_results_come_in_order_whatever_finishes_first():
    released = [threading.Event() for _ in range(4)]

    def slow(number):
        if number < 3:
            released[number].wait()
        else:
            for event in released:
                event.set()
        return number

    assert list(in_order(slow, range(20), 4)) == list(range(20))


def test_nobody_is_far_ahead_of_what_is_used():
    begun = []
    results = in_order(lambda number: begun.append(number) or number, range(1000), 2)
    assert next(results) == 0
    assert len(begun) <= 6
    results.close()


def test_an_error_reaches_who_asks():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // (5 - number), range(10), 2))


def test_the_first_is_done_by_the_caller_and_the_order_stays():
    here = threading.get_ident()
    found = list(first_here(lambda number: (number, threading.get_ident() == here), range(9), 2))
    assert [number for number, _ in found] == list(range(9))
    assert [own for _, own in found] == [True] + [False] * 8
    assert not list(first_here(str, [], 2))
