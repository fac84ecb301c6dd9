"""Put what a training run made into the zoo: weights, figures, thresholds, card."""

import pathlib
import sys
import warnings

import keras

from keras_adaptive import content, zoo
from keras_adaptive.cards import CARD, TRAINING
from keras_adaptive.entries import RECORD, Entry
from keras_adaptive.files import change_folder_whole
from keras_adaptive.report import complete_entry, data_name, measure_parts
from keras_adaptive.training.datasets import load_data
from keras_adaptive.training.run import (
    BEST,
    LOG,
    STATE,
    finished_epochs,
    load_best,
    training_speed,
)


def publish(recipe, folder, data, machine=None, dtype="float16", batch_size=256, verbose=0):
    """Write the best weights of a run as an entry of the zoo, measured as they are shipped.

    The validation part gives the thresholds; the test part is read once. An earlier entry of the
    name is replaced when the new one is complete; until then, and after an error, it stays.

    Args:
        recipe: `Recipe`. The entry has its `zoo_name`, else its own name.
        folder: path of the folder that `train` wrote.
        data: string, the data set that the run was made with, as `load_data` takes it.
        machine: string or `None`. What trained, and for how long, for the card.
        dtype: `"float32"` or `"float16"`, of the weights' file.
        batch_size: int.
        verbose: as in `keras.Model.predict`.

    Returns:
        Path of the card.

    Raises:
        ValueError: If the folder has no finished full-size epoch or is another recipe's, or the
            data set has other classes than the network, or is not the one that it learned.
    """
    name, folder = recipe.about.zoo_name or recipe.name, pathlib.Path(folder)
    for file in (BEST, LOG, STATE):
        if not (folder / file).is_file():
            raise ValueError(
                f"{folder} has no {file}, which `keras-adaptive train {recipe.name}` writes after "
                "the first epoch at full picture size that it validates."
            )
    parts = load_data(data, recipe.image_size)
    num_classes = recipe.build().outputs[-1].shape[-1]
    if len(parts.class_names) != num_classes:
        raise ValueError(
            f"The network of recipe {recipe.name!r} tells {num_classes} classes apart, {data!r} "
            f"has {len(parts.class_names)}. Give the data set that it was trained on."
        )
    epochs = finished_epochs(recipe, parts, folder)  # before weights that may be another recipe's
    model = load_best(recipe, parts, folder)
    if epochs < recipe.training.epochs:
        warnings.warn(
            f"{folder} has {epochs} of the {recipe.training.epochs} epochs of recipe "
            f"{recipe.name!r}. Its best weights so far are published; "
            f"`keras-adaptive train {recipe.name}` with this folder goes on.", stacklevel=2)
    speed = training_speed(recipe, parts, folder)
    log = (folder / LOG).read_text(encoding="utf-8")
    facts = {
        "data": f"{data_name(data)}: {len(parts.train):,} training, "
                f"{len(parts.validation):,} validation and {len(parts.test):,} test pictures",
        "software": f"Keras {keras.__version__}, {_backend()}",
        "epochs": epochs,
        **({"pictures_a_second_in_training": round(speed, 1)} if speed else {}),
        **({"machine": machine} if machine else {}),
    }

    def complete(partial):
        zoo.save_entry(model, name, partial.parent, recipe=recipe, data_set=data, figures=facts,
                       dtype=dtype)
        (partial / TRAINING).parent.mkdir(exist_ok=True)
        (partial / TRAINING).write_text(log, encoding="utf-8")
        complete_entry(measure_parts(Entry.from_file(partial / RECORD), parts, data,
                                     batch_size=batch_size, verbose=verbose))

    entry_folder = content.folder("zoo") / name
    change_folder_whole(entry_folder, complete)
    return entry_folder / CARD


def _backend():
    backend = keras.backend.backend()
    # The package's own word: TensorFlow is installed under several names.
    return f"{backend} {sys.modules[backend].__version__}"
