"""What `keras-adaptive convert` leaves, and what takes it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from keras_adaptive import cli
from keras_adaptive.converted import code_to_load, load_converted, write_converted
from keras_adaptive.demo import FOLDER
from keras_adaptive.models import RANet


def make_network(normalization):
    return RANet(channels=4, growth_rate=4, blocks=1, block_step=1, layers_per_block=2,
                 num_classes=5, normalization=normalization)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A network and its record, in a folder that was not there."""
    network = make_network("cifar10")
    return network, write_converted(network, tmp_path_factory.mktemp("made") / "new" / "net")


def test_the_code_that_is_printed_runs_as_it_stands(written):
    """In a process that knows nothing of this one."""
    network, record = written
    code = code_to_load(record) + "\nprint(float(abs(model.get_weights()[0]).sum()))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(
        float(np.abs(network.get_weights()[0]).sum()))


def test_predict_takes_what_convert_wrote(written, capsys):
    """The answers are the network's, with its names of classes and its input rule."""
    assert cli.main(["predict", str(FOLDER), "--model", written[1], "--json"]) == 0

    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers and all(0 <= answer["class_id"] < 5 for answer in answers)


def test_networks_for_normalised_pictures_are_not_given_others(tmp_path):
    """Files hold values from 0 to 255; the answers would be silently wrong."""
    record = write_converted(make_network(None), tmp_path / "net")

    with pytest.raises(ValueError, match="normalised already.*`--normalization`"):
        load_converted(record)


def test_other_files_are_refused(tmp_path):
    """Among them a record whose weights were left behind."""
    (tmp_path / "other.json").write_text('{"class_name": "Functional"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    record = write_converted(make_network("cifar10"), tmp_path / "net")
    (tmp_path / "net.weights.h5").unlink()

    # Weights that are cut short, and a record that is.
    cut = write_converted(make_network("cifar10"), tmp_path / "cut")
    weights = tmp_path / "cut.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "bare.json").write_text('{"registered_name": "keras_adaptive>RANet"}')
    (tmp_path / "bare.weights.h5").touch()

    for name, message in ((tmp_path / "other.json", "no network that `keras-adaptive convert`"),
                          (tmp_path / "broken.json", "no valid JSON"),
                          (tmp_path / "deep.json", "no valid JSON"),
                          (record, "there is no file .*net.weights.h5"),
                          (cut, "cut.weights.h5 is damaged, or of another .*Convert the check"),
                          (tmp_path / "bare.json", "bare.json is damaged.*Convert the check")):
        with pytest.raises(ValueError, match=message):
            load_converted(name)
