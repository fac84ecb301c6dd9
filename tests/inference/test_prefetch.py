import itertools
import threading
import time

import pytest

from keras_adaptive.inference.prefetch import Prefetch


def wait_until(is_so, seconds=5):
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.001)
    return is_so()


def test_elements_come_in_order_from_another_thread():
    """Reading ahead changes nothing but when and where elements are made."""
    threads = set()

    def source():
        for number in range(50):
            threads.add(threading.current_thread())
            yield number

    with Prefetch(source(), 3) as elements:
        assert list(elements) == list(range(50))
        assert list(elements) == []
    assert threading.current_thread() not in threads


def test_elements_are_made_before_they_are_asked_for_but_not_without_limit():
    """While the caller computes, the next ones are read; a large folder is not all in memory."""
    made = []

    with Prefetch((made.append(number) or number for number in itertools.count()), 2) as elements:
        assert next(elements) == 0
        assert wait_until(lambda: len(made) >= 3)
        time.sleep(0.02)
        assert len(made) <= 1 + 2 + 1


def test_an_error_reaches_the_caller_as_it_is():
    """The original exception, after the elements before it."""
    error = OSError("the disk is on fire")

    def source():
        yield 1
        raise error

    with Prefetch(source(), 2) as elements:
        assert next(elements) == 1
        with pytest.raises(OSError) as caught:
            next(elements)
        assert caught.value is error
        assert next(elements, "end") == "end"


@pytest.mark.parametrize("num_taken", [0, 1, 5])
def test_the_thread_ends_when_the_caller_stops(num_taken):
    """Nobody goes on reading for a caller that is gone."""
    before = set(threading.enumerate())

    with Prefetch(itertools.count(), 2, lambda numbers: map(str, numbers)) as elements:
        assert list(itertools.islice(elements, num_taken)) == [str(n) for n in range(num_taken)]

    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_batch_in_the_making_is_given_up():
    """Closing is noticed between the pictures of a batch, not after the last of a folder."""
    taken, go_on = [], threading.Event()

    def source():
        for number in range(1000):
            taken.append(number)
            if number == 1:
                go_on.wait(5)
            yield number

    with Prefetch(source(), 1, lambda numbers: iter([list(numbers)])):
        assert wait_until(lambda: len(taken) == 2)
    go_on.set()
    time.sleep(0.02)

    assert len(taken) <= 3
