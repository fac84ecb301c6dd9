"""Tables hold whatever values they are given."""

from keras_adaptive.markdown import some, table


def test_bars_and_line_breaks_do_not_end_a_cell():
    assert table(("a", "b"), [(1, "x | y\n z")]) == "| a | b |\n| -: | -: |\n| 1 | x \\| y z |"


def test_a_long_list_is_thinned_between_its_ends():
    assert some([1, 2]) == [1, 2]
    assert some(list(range(91))) == list(range(0, 91, 10))
