"""Recipes: one experiment as a readable TOML file, checked on loading."""

import dataclasses
import pathlib
import tomllib

import keras

from keras_adaptive import models
from keras_adaptive.training.datasets import steps_per_epoch, training_pipeline
from keras_adaptive.training.losses import LastExitDistillation, SmoothedCrossEntropy
from keras_adaptive.training.optimizers import UNDECAYED, PenalizedSGD
from keras_adaptive.training.photographs import Photographs, photograph_pipeline
from keras_adaptive.training.recipe_tables import About, ThumbNetTraining, Training, read_tables
from keras_adaptive.training.schedules import CosineCycles

# With it the validation parts of CIFAR-10 and ImageNet leave remainders that 8 devices can share.
VALIDATION_BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One experiment: what is trained, on what, and how.

    Attributes:
        name: string. The file's name without its ending.
        about: `About`.
        model: dict. `configuration`, a name in `keras_adaptive.models.PUBLISHED`, and arguments
            that override it.
        data: dict. `name` of the data set.
        training: `Training`.
        expected: dict. Figures of a run that was made with this recipe.
        thumbnet: `ThumbNetTraining`, of a `ThumbNetCascade`; otherwise `None`.
    """

    name: str
    about: About
    model: dict
    data: dict
    training: Training
    expected: dict = dataclasses.field(default_factory=dict)
    thumbnet: ThumbNetTraining | None = None

    @classmethod
    def from_file(cls, path):
        """Read a recipe.

        Args:
            path: path of a `.toml` file.

        Raises:
            ValueError: If the file is no TOML, a table or key is unknown or missing, or a value
                has the wrong type. The message names the nearest known key.
        """
        path = pathlib.Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no valid TOML: {error}.") from error
        return cls.from_dict(path.stem, content)

    @classmethod
    def from_dict(cls, name, content):
        """Make a recipe of the tables that a file holds; see `from_file`."""
        recipe = cls(name, **read_tables(name, content))
        recipe._check_exits()
        return recipe

    def _check_exits(self):
        """Compare what is set for exits with their number, for which the network must be built."""
        weights = self.training.exit_weights
        if not weights and not self.training.distillation:
            return
        num_exits = self.build().num_exits
        if self.training.distillation and num_exits == 1:
            raise ValueError(
                f"{self.name}, [training]: by `distillation` earlier exits learn from the last, "
                "and the network of [model] has a single exit. Leave it out."
            )
        if weights and len(weights) != num_exits:
            raise ValueError(
                f"{self.name}, [training]: `exit_weights` takes one number per exit, and the "
                f"network of [model] has {num_exits}. Received {len(weights)}: {list(weights)}."
            )

    @property
    def image_size(self):
        """int. Side of the pictures of the last phase, and of the finished network's input."""
        return self.training.phases[-1].image_size

    def build(self, image_size=None):
        """Return the recipe's model with fresh weights.

        Args:
            image_size: int or `None`. Side of the input; `None` for the finished network's.

        Raises:
            ValueError: If the table [model] describes no network, or none for this size.
        """
        size = image_size or self.image_size
        arguments = {key: value for key, value in self.model.items() if key != "configuration"}
        try:
            return models.build(
                self.model["configuration"], input_shape=(size, size, 3), **arguments)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}, [model], for pictures of {size} pixels a side: {error}") from error

    def start(self, model):
        """Give a model that is built anew the weights that training starts from."""
        if self.thumbnet and self.thumbnet.teacher:
            from keras_adaptive import zoo  # which reads recipes

            model.take_teacher(zoo.load(self.thumbnet.teacher, pretrained=True),
                               self.thumbnet.initial)

    def learner(self, model):
        """Return what is compiled and fitted: the model itself, or the `ThumbNet` in it.

        Args:
            model: what `build` gave. It shares its variables with what this returns.
        """
        return model.learner(**self.thumbnet.arguments()) if self.thumbnet else model

    def compile(self, model, steps):
        """Compile a model with the recipe's optimizer and learning-rate schedule.

        Args:
            model: what `learner` gave.
            steps: int. Steps of one epoch, for the schedule.
        """
        training = self.training
        if training.drop_epochs:
            schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
                [epoch * steps - 1 for epoch in training.drop_epochs],  # the last step before
                [training.peak_learning_rate * 0.1**drop
                 for drop in range(len(training.drop_epochs) + 1)])
        else:
            schedule = CosineCycles(training.peaks, [epochs * steps for epochs in training.cycles],
                                    round(training.warmup_epochs * steps))
        settings = {"momentum": training.momentum, "nesterov": training.nesterov,
                    "weight_decay": training.weight_decay or None}
        if training.average:
            settings |= {"use_ema": True, "ema_momentum": training.average}
        if training.l2:
            optimizer = PenalizedSGD(schedule, l2=training.l2, **settings)
        else:
            optimizer = keras.optimizers.SGD(schedule, **settings)
        optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
        loss = (SmoothedCrossEntropy(training.label_smoothing) if training.label_smoothing
                else None)
        if self.thumbnet:
            model.compile(optimizer, loss=loss)
            return
        model.compile(
            optimizer,
            loss=loss,
            exit_weights=training.exit_weights or None,
            distillation=LastExitDistillation(**training.distillation) if training.distillation
            else None)

    def fit_arguments(self, data, image_size=None, first_epoch=0, last_epoch=None,
                      random_erasing=0.0):
        """Return the arguments for `model.fit(**arguments)`.

        Args:
            data: `Data` or `PhotographData`.
            image_size: int or `None`. Side of the pictures; `None` for the last phase's.
            first_epoch: int. Epochs that are done already.
            last_epoch: int or `None`. Number of the epoch to stop after, counted from 1.
            random_erasing: float. The phase's share of pictures that lose a rectangle.
        """
        training = self.training
        size = image_size or self.image_size
        last_epoch = last_epoch or training.epochs
        train, validation = data.train.resized(size), data.validation.resized(size)
        if isinstance(train, Photographs):
            pipeline = photograph_pipeline
            # Keras does not know where such a pipeline ends: it counts the steps.
            checked = {"validation_data": validation.batches(VALIDATION_BATCH_SIZE, repeat=True),
                       "validation_steps": -(-len(validation) // VALIDATION_BATCH_SIZE)}
        else:
            pipeline = training_pipeline
            checked = {"validation_data": (validation.x, validation.y),
                       "validation_batch_size": VALIDATION_BATCH_SIZE}
        return {
            "x": pipeline(train, training.batch_size, last_epoch, training.seed, first_epoch,
                          training.rand_augment, training.crop_area, random_erasing),
            "steps_per_epoch": steps_per_epoch(train, training.batch_size),
            "epochs": last_epoch,
            "initial_epoch": first_epoch,
            "validation_freq": [epoch for epoch in range(first_epoch + 1, last_epoch + 1)
                                if epoch % training.validate_every == 0 or epoch == last_epoch],
            **checked,
            "shuffle": False,  # the pipeline does it
        }

    def quick(self, two_scales=False):
        """Return the recipe cut down to seconds: a small network, one epoch, small batches.

        For tests: it shows that the recipe runs, and says nothing about accuracy. Networks with
        several exits keep two, of whose losses the last `exit_weights` are the weights.

        Args:
            two_scales: bool. Whether a RANet keeps two sub-networks, so that one fuses the features
                of the other, in place of one. It takes more than twice the time.
        """
        arguments = models.network_defaults(self.model)
        num_exits = 1
        if self.thumbnet:
            return self._quick_thumbnet()
        if "scales" in arguments:  # RANet
            num_exits = 2
            small = {"channels": 4, "growth_rate": 4, "layer_growth": "even", "pooling": "global"}
            if two_scales:
                small |= {"blocks": 1, "block_step": 1, "layers_per_block": 2, "scales": [1, 2],
                          "growth_factors": [2, 1]}
            else:
                small |= {"blocks": 2, "layers_per_block": 1, "scales": [1], "growth_factors": [1]}
        elif "blocks" in arguments:  # MSDNet
            num_exits = 2
            small = {"channels": 4, "growth_rate": 4, "layer_growth": "even", "blocks": 2,
                     "layers_in_first_block": 1, "layers_per_block": 1, "growth_factors": [1, 2],
                     "pooling": "global"}
        elif "growth_rate" in arguments:  # DenseNet
            small = {"depth": 10, "growth_rate": 4}
        else:
            small = {"depth": 8, "channels": 4}
        return dataclasses.replace(self, model={**self.model, **small},
                                   training=self._quick_training(num_exits))

    def _quick_thumbnet(self):
        small = {"teacher": "resnet20_cifar10", "teacher_arguments": {"depth": 8, "channels": 4}}
        return dataclasses.replace(self, model={**self.model, **small},
                                   training=self._quick_training(num_exits=2),
                                   thumbnet=dataclasses.replace(self.thumbnet, teacher=""))

    def _quick_training(self, num_exits):
        last = self.training.phases[-1]
        last = dataclasses.replace(last, epochs=1, image_size=min(last.image_size, 64))
        return dataclasses.replace(self.training, phases=(last,), batch_size=8,
                                   precision="float32",
                                   exit_weights=self.training.exit_weights[-num_exits:])
