"""The authors' argument dictionaries. That networks equal theirs is tested in `models`."""

import argparse

import numpy as np
import pytest

from keras_adaptive.authors_arguments import translate

ARGS = {
    "arch": "msdnet", "data": "cifar10", "nBlocks": 2, "nChannels": 4, "base": 2, "step": 1,
    "stepmode": "even", "growthRate": 4, "grFactor": "1-2", "bnFactor": [1, 2], "prune": "max",
    "bottleneck": True, "reduction": 0.5, "arch_note": "ignored",
}


@pytest.mark.parametrize("change, message", [
    ({"arch": "RANET"}, "one of .'RANet', 'msdnet'.. Received: 'RANET'. Did you mean 'RANet'"),
    ({"arch": "RANet"}, "lacks .'block_step', 'scale_list', 'compress_factor'."),
    ({"data": "mnist"}, "is 'ImageNet', or begins with .*'cifar100'.. Received: 'mnist'"),
    ({"grFactor": 4}, "'grFactor'.* list of whole numbers .*'4-2-1'. Received: 4"),
    ({"bnFactor": "1-x"}, "'bnFactor'.*Received: '1-x'"),
    ({"nBlocks": "2"}, "'nBlocks'.. is a whole number of 0 or more. Received: '2'"),
    ({"reduction": "0.5"}, "'reduction'.. is a number. Received: '0.5'"),
    ({"num_classes": 1}, "'num_classes'.. is a whole number of 2 or more. Received: 1"),
])
def test_arguments_that_say_too_little_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        translate({**ARGS, **change})


def test_sides_and_classes_follow_from_the_data():
    _, cifar = translate({**ARGS, "data": "cifar100"})
    _, imagenet = translate({**ARGS, "data": "ImageNet"}, image_shape=(160, 192))

    assert (cifar["input_shape"], cifar["num_classes"]) == ((32, 32, 3), 100)
    assert (imagenet["input_shape"], imagenet["num_classes"]) == ((160, 192, 3), 1000)
    assert cifar["growth_factors"] == [1, 2]


@pytest.mark.parametrize("image_shape", [(24, 24, 3), 0, "24", (24.0, 24)])
def test_image_shapes_that_are_none_are_refused(image_shape):
    """None of them becomes the default, or an error of NumPy's."""
    with pytest.raises(ValueError, match="is .height, width. in pixels.*Received: "):
        translate(ARGS, image_shape)


def test_arguments_come_as_their_parser_gives_them():
    """A Namespace, NumPy's numbers."""
    expected = translate(ARGS, 24)

    assert translate(argparse.Namespace(**ARGS), np.int64(24)) == expected
    with pytest.raises(ValueError, match="`args` is the dict .*Received: str"):
        translate("args.json")


@pytest.mark.parametrize("data, num_classes", [("cifar10-noisy", 10), ("cifar100_coarse", 100)])
def test_data_that_begins_like_cifar_is_cifar(data, num_classes):
    """The authors' programs look at the beginning only."""
    arguments = translate({**ARGS, "data": data})[1]

    assert (arguments["num_classes"], arguments["stem"]) == (num_classes, "cifar")
