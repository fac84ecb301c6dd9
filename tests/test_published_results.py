"""The papers' points: those of the file that ships, and what a malformed one gives."""

import json

import pytest

from keras_adaptive.published_results import read_published

HEADER = "data,protocol,network,exit,mean_macs,accuracy,source\n"


def _points(data, protocol, network):
    return [p for p in read_published(data) if (p.protocol, p.network) == (protocol, network)]


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_costs_of_numbered_exits_are_the_exact_counts(parity, data):
    """Of the networks that RANET.md, section C, finds in the papers' figures."""
    counts = json.loads((parity / "published_counts.json").read_text())
    for network, name in (("RANet C-3", f"ranet_c3_even_{data}"),
                          ("MSDNet with 10 exits", f"msdnet_even_b10_base4_step2_{data}")):
        points = _points(data, "anytime", network)
        assert [p.mean_macs for p in points] == counts[name]["reference"]
        assert [p.exit for p in points] == list(range(1, len(points) + 1))
        assert all(f"{name} by the authors' counter" in p.source for p in points)


def test_both_protocols_and_data_sets_are_there():
    for data, best in (("cifar10", 0.942), ("cifar100", 0.7565)):
        ranet = _points(data, "budgeted", "RANet")
        assert max(p.accuracy for p in ranet) == best
        assert len(_points(data, "budgeted", "MSDNet")) >= 10
        assert any("ResNet" in p.network for p in read_published(data))
        kinds = {p.network: (p.is_adaptive, p.is_static) for p in read_published(data)}
        assert kinds["RANet C-3"] == kinds["MSDNet"] == (True, False)
        assert kinds["ensemble of ResNets"] == kinds["DenseNets"] == (False, True)
        assert kinds["ResNet with multiple classifiers"] == (False, False)
    assert len(read_published()) == len(read_published("cifar10")) + len(
        read_published("cifar100"))


@pytest.mark.parametrize("text, message", [
    ("", r"has the columns \[\]"),
    (HEADER.replace("exit,", ""), "has the columns"),
    (HEADER + "cifar10,budgeted,RANet,,1e7,0.9\n", "line 2: expected 7 values, received 6"),
    (HEADER + "cifar10,budget,RANet,,1e7,0.9,x\n", "line 2: `protocol` is one of"),
    (HEADER + "cifar10,budgeted,RANet,,1e7,0.9,\n", "line 2: .*`source` are not empty"),
    (HEADER + "cifar10,budgeted,RANet,one,1e7,0.9,x\n", "line 2: invalid literal"),
    (HEADER + "cifar10,budgeted,RANet,0,1e7,0.9,x\n", "line 2: .*exits count from 1"),
    (HEADER + "cifar10,budgeted,RANet,,1e7,90,x\n", "line 2: .*`accuracy` a share"),
    (HEADER + "cifar10,budgeted,RANet,,nan,0.9,x\n", "line 2: `mean_macs` is above 0"),
])
def test_a_malformed_file_is_an_error_that_names_the_line(tmp_path, text, message):
    (tmp_path / "published.csv").write_text(text)

    with pytest.raises(ValueError, match=message):
        read_published(path=tmp_path / "published.csv")
