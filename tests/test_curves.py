"""Figures of accuracy and cost: the right content. How they look is for eyes, not for tests."""

import pytest

from keras_adaptive.curves import (
    plot_accuracy,
    plot_curves,
    plot_equal_schedule,
    plot_exit_histogram,
)
from keras_adaptive.equal_schedule import EqualSchedulePoint
from keras_adaptive.evaluation import BudgetedPoint, OperatingPoint
from keras_adaptive.published_results import PublishedPoint

pytest.importorskip("matplotlib")


def _texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _budgeted(mean_macs, accuracy, exit_shares=(0.5, 0.5)):
    return BudgetedPoint(mean_macs, True, (0.9, 0.0), accuracy, mean_macs, accuracy, mean_macs,
                         exit_shares)


def test_accuracy_has_exits_as_dots_and_thresholds_as_a_line_by_cost():
    points = [
        OperatingPoint(1, None, 0.8, 1e7, 0.25, ()),
        OperatingPoint(2, None, 0.9, 4e7, 1.0, ()),
        OperatingPoint(None, 0.9, 0.89, 2.5e7, 0.6, ()),
        OperatingPoint(None, 0.5, 0.85, 1.5e7, 0.4, ()),
    ]

    figure = plot_accuracy(points, "A title")

    exits, thresholds = figure.axes[0].lines
    assert exits.get_xydata().tolist() == [[10, 80], [40, 90]]
    assert thresholds.get_xydata().tolist() == [[15, 85], [25, 89]]
    assert _texts(figure) == ["exit 1", "exit 2", "0.5", "0.9"]
    assert figure.axes[0].get_title() == "A title"


def test_thresholds_that_lie_close_together_share_a_label():
    points = [
        OperatingPoint(1, None, 0.8, 1e7, 0.25, ()),
        OperatingPoint(2, None, 0.9, 4e7, 1.0, ()),
        OperatingPoint(None, 0.5, 0.85, 1.5e7, 0.4, ()),
        OperatingPoint(None, 0.6, 0.851, 1.55e7, 0.4, ()),
        OperatingPoint(None, 0.7, 0.86, 1.58e7, 0.4, ()),  # higher up
        OperatingPoint(None, 0.9, 0.86, 2.5e7, 0.6, ()),  # further right
    ]

    assert _texts(plot_accuracy(points)) == ["exit 1", "exit 2", "0.5", "0.7", "0.9"]


def test_accuracy_works_without_thresholds():
    figure = plot_accuracy([OperatingPoint(1, None, 0.8, 1e7, 1.0, (1.0,))])

    assert len(figure.axes[0].lines) == 1


def test_curves_have_a_line_for_each_network_and_say_whose_it_is():
    """Costs in millions, in their order; the papers' points say that they are the papers'."""
    exits = [OperatingPoint(1, None, 0.8, 1e7, 0.25, ()), OperatingPoint(2, None, 0.9, 4e7, 1, ())]
    published = [PublishedPoint("cifar10", "budgeted", "RANet", None, 2e7, 0.92, "a figure"),
                 PublishedPoint("cifar10", "budgeted", "RANet", None, 1e7, 0.91, "a figure"),
                 PublishedPoint("cifar10", "anytime", "RANet C-3", 1, 1.5e7, 0.90, "a figure"),
                 PublishedPoint("cifar10", "budgeted", "ResNets", None, 4e7, 0.92, "a figure"),
                 PublishedPoint("cifar10", "anytime", "ensemble of ResNets", None, 5e7, 0.93, "")]

    figure = plot_curves([_budgeted(3e7, 0.89), _budgeted(1e7, 0.8)], exits, published,
                         {"msdnet_cifar10": [_budgeted(2e7, 0.85)]}, "A title")

    lines = {line.get_label(): line for line in figure.axes[0].lines}
    points = {label: line.get_xydata().tolist() for label, line in lines.items()}
    assert points == {
        "this network, budgeted": [[10, 80], [30, 89]],
        "this network, each exit": [[10, 80], [40, 90]],
        "RANet, budgeted (paper)": [[10, 91], [20, 92]],
        "RANet C-3, each exit (paper)": [[15, 90]],
        "ResNets (paper)": [[40, 92]],
        "ensemble of ResNets (paper)": [[50, 93]],
        "msdnet_cifar10, budgeted": [[20, 85]],
    }
    colors = {label: line.get_color() for label, line in lines.items()}
    assert colors["RANet, budgeted (paper)"] == colors["RANet C-3, each exit (paper)"]
    assert lines["ResNets (paper)"].get_linestyle() == "None"
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(legend) == sorted(points) and legend[0] == "this network, budgeted"


def test_many_other_networks_look_different_and_the_same_in_each_figure():
    """The network of the figure is missing among them; what the others look like stays."""
    exits = [OperatingPoint(1, None, 0.8, 1e7, 0.25, ()), OperatingPoint(2, None, 0.9, 4e7, 1, ())]
    points = {f"network {number:02}": [_budgeted(1e7, 0.8), _budgeted(2e7, 0.9)]
              for number in range(12)}
    looks = []
    for shown in ("network 00", "network 07"):
        others = {name: line for name, line in points.items() if name != shown}
        axes, = plot_curves(points[shown], exits, others=others, name=shown).axes
        looks.append({line.get_label(): (line.get_color(), line.get_marker())
                      for line in axes.lines if not line.get_label().startswith("this")})

    assert len(set(looks[0].values())) == len(set(looks[1].values())) == 11
    assert all(looks[0][name] == looks[1][name] for name in {*looks[0]} & {*looks[1]})


def test_a_network_of_one_exit_is_a_mark():
    """It has no budgets; a line of one point could not be seen."""
    exits = [OperatingPoint(1, None, 0.8, 1e7, 1.0, (1.0,))]
    static = [_budgeted(2e7, 0.85, (1.0,)), _budgeted(2e7, 0.85, (1.0,))]

    axes, = plot_curves([_budgeted(1e7, 0.8, (1.0,))], exits, others={"resnet": static}).axes

    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"this network, each exit", "resnet"}
    assert lines["resnet"].get_linestyle() == "None" and lines["resnet"].get_markersize() > 4


def test_equal_schedules_have_two_lines_for_each_network():
    """Points are drawn in the order of their costs, whatever the order they come in."""
    points = [EqualSchedulePoint(network, "recipe", 6, "pictures", protocol, macs, accuracy)
              for network in ("RANet", "MSDNet") for protocol in ("anytime", "budgeted")
              for macs, accuracy in ((2e7, 0.4), (1e7, 0.3))]

    axes, = plot_equal_schedule(points, "after 6 epochs").axes

    assert [line.get_label() for line in axes.lines] == [
        "RANet, within a budget", "RANet, each exit", "MSDNet, within a budget",
        "MSDNet, each exit"]
    for line in axes.lines:
        assert list(line.get_xdata()) == [10, 20] and list(line.get_ydata()) == [30, 40]


def test_many_networks_of_equal_schedule_look_different():
    """Colours and marks begin anew, but not both at the same network."""
    points = [EqualSchedulePoint(f"network {number}", "recipe", 6, "pictures", protocol, 1e7, 0.3)
              for number in range(13) for protocol in ("anytime", "budgeted")]

    axes, = plot_equal_schedule(points).axes

    assert len(axes.lines) == 26
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines if line.get_marker()
             != "None"}
    assert len(looks) == 13


def test_histogram_has_a_bar_per_exit_and_setting():
    figure = plot_exit_histogram({"careful": (0.2, 0.8), "quick": (0.7, 0.3)}, [8e6, 2e7])

    axes, = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([20, 80, 70, 30])
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "exit 1\n8 M", "exit 2\n20 M"]
    lefts = [bar.get_x() for bar in axes.patches]
    assert lefts[0] < lefts[2] < lefts[1] < lefts[3], "settings stand side by side"


def test_a_long_title_of_a_narrow_histogram_is_not_cut_off():
    """With two exits, the name of a network and of a data set take more than one line."""
    text = "thumbnet_tiny_imagenet: where 10,000 test pictures of tiny_imagenet leave"
    figure = plot_exit_histogram({"all": (0.2, 0.8)}, [8e6, 2e7], text)
    figure.draw_without_rendering()

    title, = figure.findobj(lambda artist: getattr(artist, "get_text", str)() == text)
    box = title.get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("shares, received", [({}, "nothing"), ({"a": (1.0,)}, "{'a': 1}")])
def test_histogram_needs_a_share_per_exit(shares, received):
    with pytest.raises(ValueError, match=f"2 numbers, one per exit. Received: {received}"):
        plot_exit_histogram(shares, [8e6, 2e7])
