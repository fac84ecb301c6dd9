"""Outputs equal those of the authors' programs on their own weights."""

import json

import numpy as np
import pytest

TOLERANCE = 2e-4  # on logits of order 1; the authors' own float32 error is up to 1e-5

CASES = [
    "ranet_c1_real", "ranet_even_123_bstep2", "ranet_lg_123_bstep2", "ranet_even_1223_bstep1",
    "ranet_lg_1233_bstep1", "ranet_even_1233_nb2", "ranet_bstep3_nb1_img36",
    "ranet_nb3_bstep1_img40_c50", "ranet_img33_bn_mixed", "ranet_112_quirk_img22",
    "ranet_imagenet_160", "ranet_imagenet_224", "msdnet_even_max", "msdnet_lingrow_max",
    "msdnet_even_min", "msdnet_nobottleneck_noreduction_img40", "msdnet_min_nobottleneck_lingrow",
    "msdnet_imagenet_192",
]


def test_every_case_of_the_authors_is_tested(parity):
    """A case added to the folder cannot be forgotten here."""
    index = json.loads((parity / "index.json").read_text())

    assert sorted(entry["name"] for entry in index) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_authors(authors_case, logits_of, record_property, name):
    """All exits give the authors' logits, on odd sizes and for every mixture of scales too."""
    model, x, expected = authors_case(name)

    logits = logits_of(model, x)

    assert len(logits) == len(expected)
    error = max(np.abs(ours - theirs).max() for ours, theirs in zip(logits, expected))
    record_property("max_abs_error", float(error))
    assert error < TOLERANCE, f"{name}: {error:.2e}"


def test_swapping_two_branches_would_be_noticed(authors_case, logits_of):
    """The comparison is sharp: the same weights in another wiring give other logits."""
    model, x, expected = authors_case("ranet_even_123_bstep2")
    layer = model.get_layer("subnetwork2_block1").layers[0]
    mean = layer.own.conv.norm.moving_mean
    mean.assign(mean + 0.01)

    logits = logits_of(model, x)

    assert np.abs(logits[-1] - expected[-1]).max() > TOLERANCE
