import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_adaptive.inference.carried import Carried

PROPERTY = settings(deadline=None, max_examples=200, database=None, derandomize=True)


def gather(parts):
    return np.concatenate([tensor if rows is None else tensor[rows] for tensor, rows in parts])


def refuse(parts):
    raise AssertionError("nothing should be copied")


@PROPERTY
@given(data=st.data())
def test_any_chain_of_choices_gives_the_rows_of_the_pictures(data):
    """Taking, joining, adding and copying together, in any order, lose and swap nothing."""
    counter = iter(range(10**6))

    def fresh(num_rows):
        numbers = np.array([next(counter) for _ in range(num_rows)])
        return numbers, Carried.of({"a": numbers * 2, "b": numbers * 3}, num_rows)

    numbers, carried = fresh(data.draw(st.integers(1, 6)))
    added = 0
    for _ in range(data.draw(st.integers(0, 12))):
        action = data.draw(st.sampled_from(["take", "join", "compact", "read", "add"]))
        if action == "take":
            rows = np.array(sorted(data.draw(
                st.sets(st.integers(0, len(numbers) - 1), min_size=1))))
            numbers, carried = numbers[rows], carried.take(rows)
        elif action == "join" and not added:
            others, other = fresh(data.draw(st.integers(1, 6)))
            rows = np.arange(data.draw(st.integers(0, len(others) - 1)), len(others))
            numbers = np.concatenate([numbers, others[rows]])
            carried = Carried.join([carried, other.take(rows)])
        elif action == "compact":
            carried.compact(gather)
            assert carried.num_alive() == len(numbers)
        elif action == "read":
            np.testing.assert_array_equal(carried.read(["a"], gather)[0], numbers * 2)
            carried.read(["a"], refuse)
        else:
            added += 1
            carried.add({f"more{added}": numbers * 5})

    assert carried.num_rows == len(numbers)
    more = [f"more{number}" for number in range(1, added + 1)]
    tensors = carried.read(["a", "b", *more], gather)
    for tensor, factor in zip(tensors, [2, 3, *([5] * added)]):
        np.testing.assert_array_equal(tensor, numbers * factor)


def test_indices_are_shared_between_tensors_chosen_together():
    """Choosing rows costs once, however many tensors are carried."""
    carried = Carried.of({key: np.arange(8) for key in "abcdef"}, 8)
    carried = carried.take(np.array([1, 4, 6])).take(np.array([0, 2]))
    seen = []

    tensors = carried.read("abcdef", lambda parts: seen.append(parts[0][1]) or gather(parts))

    assert len({id(rows) for rows in seen}) == 1 and len(seen) == 6
    assert all(tensor.tolist() == [1, 6] for tensor in tensors)


def test_whole_tensors_are_handed_on_as_they_are():
    tensor = np.arange(4)

    assert Carried.of({"a": tensor}, 4).read(["a"], refuse)[0] is tensor


def test_what_was_copied_together_is_not_copied_again():
    """Rows are moved out of large tensors once; later pieces join them."""
    carried = Carried.of({"a": np.arange(100)}, 100).take(np.array([7, 50]))
    copied = []

    def count(parts):
        copied.extend(len(tensor) if rows is None else len(rows) for tensor, rows in parts)
        return gather(parts)

    carried.compact(count)
    carried = Carried.join([carried, Carried.of({"a": np.arange(100)}, 100).take(np.array([3]))])
    carried.compact(count)

    assert copied == [2, 1]
    assert carried.num_alive() == 3
    assert carried.read(["a"], gather)[0].tolist() == [7, 50, 3]


def test_dropped_tensors_are_gone():
    carried = Carried.of({"a": np.arange(2), "b": np.arange(2)}, 2)
    carried.drop(["a"])

    with pytest.raises(KeyError):
        carried.read(["a"], gather)
    assert carried.read(["b"], refuse)[0].tolist() == [0, 1]
