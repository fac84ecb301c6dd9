import pytest

from keras_adaptive.evaluation.tables import in_millions


@pytest.mark.parametrize("macs, text", [
    (12_345_678, "12.35 M"), (125_000.5, "0.13 M"), (1_234.5, "1.23 k"), (0, "0.00 k")])
def test_multiply_adds_are_told_in_millions_or_thousands(macs, text):
    assert in_millions(macs) == text
