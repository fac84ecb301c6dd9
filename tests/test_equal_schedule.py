"""Points of equal training go to a file and come back; what is no such file is refused."""

import pytest

from keras_adaptive.equal_schedule import (
    EqualSchedulePoint,
    read_equal_schedule,
    write_equal_schedule,
)

POINTS = [
    EqualSchedulePoint(network, "recipe", 6, "10,000 test pictures", protocol, macs, accuracy)
    for network, protocol, macs, accuracy in (
        ("RANet", "anytime", 1e7, 0.25), ("RANet", "budgeted", 1.5e7, 0.3),
        ("MSDNet", "anytime", 2e7, 0.2), ("MSDNet", "budgeted", 2.5e7, 0.28))]


def test_points_come_back(tmp_path):
    path = tmp_path / "points.csv"

    write_equal_schedule(path, POINTS)

    assert read_equal_schedule(path) == POINTS


@pytest.mark.parametrize("old, new, message", [
    ("mean_macs", "macs", "has the columns"),
    ("budgeted", "sometimes", "line 3.*`protocol` is one of"),
    ("15000000.0", "inf", "line 3.*`mean_macs` above 0"),
    ("0.3\n", "30\n", "line 3.*from 0 to 1"),
    ("0.3\n", "a third\n", "line 3.*a third"),
    ("0.3\n", "\n", "line 3"),
    ("MSDNet,recipe,6", "MSDNet,recipe,7", "equally many epochs.*'MSDNet', 7"),
    ("MSDNet", "RANet", "two networks or more"),
])
def test_malformed_files_are_refused(tmp_path, old, new, message):
    path = tmp_path / "points.csv"
    write_equal_schedule(path, POINTS)
    text = path.read_text(encoding="utf-8")
    changed = text.replace(old, new) if old.startswith("MSDNet") else text.replace(old, new, 1)
    path.write_text(changed, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        read_equal_schedule(path)
