"""What a predictor found out: one answer per picture, and what the answers cost."""

import dataclasses
import json

import numpy as np

from keras_adaptive.evaluation.tables import in_millions


@dataclasses.dataclass(frozen=True)
class PicturePrediction:
    """The answer for one picture, as `Prediction` hands it out by index or in a loop."""

    class_id: int
    label: str | None  # None where the model has no class names
    confidence: float  # largest probability at the exit that answered
    exit: int  # counted from 1
    macs: int  # multiply-adds spent on this picture
    cost_share: float  # `macs` over the cost of the whole network
    file: str | None  # None where the picture did not come from a file
    probabilities: np.ndarray = dataclasses.field(repr=False, compare=False)
    class_names: tuple | None = dataclasses.field(default=None, repr=False, compare=False)

    def top(self, count=5):
        """Return the likeliest classes, surest first, as a list of pairs.

        Args:
            count: int. Number of classes; all, where there are fewer.

        Returns:
            List of `(name, probability)`; the class's number where the model has no names.
        """
        order = np.argsort(-self.probabilities, kind="stable")[:count].tolist()
        names = self.class_names or range(len(self.probabilities))
        return [(names[class_id], float(self.probabilities[class_id])) for class_id in order]

    def to_dict(self, probabilities=False):
        """Return numbers and strings, ready for JSON; class probabilities only on request."""
        record = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("probabilities", "class_names")
        }
        if probabilities:
            record["probabilities"] = self.probabilities.tolist()
        return record


@dataclasses.dataclass(frozen=True)
class PredictionSummary:
    """How much work a prediction took. The means are None when there are no pictures."""

    num_pictures: int
    full_macs: int  # cost of the whole network for one picture
    mean_macs: float | None
    mean_cost_share: float | None  # 1.0: nothing saved
    mean_confidence: float | None
    exit_shares: tuple  # share of the pictures answered by exit 1, 2, ...; sums to 1

    def __str__(self):
        if not self.num_pictures:
            return "no pictures"
        shares = ", ".join(
            f"exit {number}: {share:.1%}" for number, share in enumerate(self.exit_shares, start=1)
        )
        return (
            f"{_count_pictures(self.num_pictures)} at {self.mean_cost_share:.1%} of the full cost "
            f"({in_millions(self.mean_macs)} of {in_millions(self.full_macs)} multiply-adds); "
            f"{shares}"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Answers of an early-exit network, in the order in which the pictures came in.

    An integer index and a loop give a `PicturePrediction`; a slice, a mask or an array of positions
    gives the `Prediction` of those pictures.

    Args:
        class_ids: ints, shape `(num_pictures,)`. The most probable class.
        confidences: floats, shape `(num_pictures,)`. The probability of that class.
        probabilities: floats, shape `(num_pictures, num_classes)`, at the exit that answered.
        exits: ints, shape `(num_pictures,)`. The exit that answered, counted from 1.
        macs: ints, shape `(num_pictures,)`. Multiply-adds spent, heads passed on the way included.
        full_macs: int. Multiply-adds of the whole network for one picture.
        num_exits: int. Exits of the network, in use or not.
        class_names: sequence of `num_classes` strings, or None.
        files: sequence of `num_pictures` paths, or None where the pictures were not files.

    Raises:
        ValueError: If the arrays do not fit each other, or an exit or a class does not exist.

    Example:

    >>> prediction = Prediction([1], [0.9], [[0.1, 0.9]], [1], [10], 40, 2, ["cat", "dog"])
    >>> prediction.labels.tolist(), prediction.summary().mean_cost_share
    (['dog'], 0.25)
    """

    class_ids: np.ndarray
    confidences: np.ndarray
    probabilities: np.ndarray
    exits: np.ndarray
    macs: np.ndarray
    full_macs: int
    num_exits: int
    class_names: tuple | None = None
    files: tuple | None = None

    @classmethod
    def _of_checked(cls, **fields):
        """Return a prediction of arrays that are known to be right, without checking them again.

        Args:
            **fields: all arguments, with the dtypes that the attributes have.
        """
        prediction = object.__new__(cls)
        prediction.__dict__.update(fields)
        return prediction

    def __post_init__(self):
        dtypes = {
            "class_ids": np.int64,
            "confidences": np.float32,
            "probabilities": np.float32,
            "exits": np.int64,
            "macs": np.int64,
        }
        for name, dtype in dtypes.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for name in ("class_names", "files"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(str(text) for text in getattr(self, name)))
        self._check_shapes(dtypes)
        self._check_values()

    def _check_shapes(self, names):
        if self.probabilities.ndim != 2:
            raise ValueError(
                "`probabilities` takes one row of class probabilities per picture, "
                f"shape (num_pictures, num_classes). Received shape {self.probabilities.shape}."
            )
        num_pictures, num_classes = self.probabilities.shape
        for name in set(names) - {"probabilities"}:
            shape = getattr(self, name).shape
            if shape != (num_pictures,):
                raise ValueError(
                    f"`{name}` takes one value per picture, {num_pictures} as in `probabilities`. "
                    f"Received shape {shape}."
                )
        if self.files is not None and len(self.files) != num_pictures:
            raise ValueError(
                f"`files` takes one path per picture ({num_pictures}). Received {len(self.files)}."
            )
        if self.class_names is not None and len(self.class_names) != num_classes:
            raise ValueError(
                f"`class_names` takes one name per class ({num_classes}). "
                f"Received {len(self.class_names)}."
            )

    def _check_values(self):
        if np.any((self.exits < 1) | (self.exits > self.num_exits)):
            raise ValueError(
                f"`exits` counts from 1 to `num_exits`={self.num_exits}. "
                f"Received values from {self.exits.min()} to {self.exits.max()}."
            )
        num_classes = self.probabilities.shape[1]
        if np.any((self.class_ids < 0) | (self.class_ids >= num_classes)):
            raise ValueError(
                f"`class_ids` are positions in {num_classes} classes, from 0. "
                f"Received values from {self.class_ids.min()} to {self.class_ids.max()}."
            )
        if np.any(self.macs < 0):
            raise ValueError(f"`macs` must not be negative. Received {self.macs.min()}.")

    @property
    def labels(self):
        """Array of class names, one per picture, or None where the model has no names."""
        if self.class_names is None:
            return None
        return np.array(self.class_names, dtype=object)[self.class_ids]

    def top(self, count=5):
        """Return the likeliest classes of each picture, surest first.

        Args:
            count: int. Number of classes; all, where there are fewer.

        Returns:
            List of a list of pairs `(name, probability)` per picture; a number in place of the name
            where the model has no names.

        Example:

        >>> Prediction([1], [0.9], [[0.1, 0.9]], [1], [10], 40, 2, ["cat", "dog"]).top(1)[0][0][0]
        'dog'
        """
        return [picture.top(count) for picture in self]

    @property
    def cost_shares(self):
        """Array of shares of the whole network's cost, one per picture."""
        return self.macs / self.full_macs

    def __len__(self):
        return len(self.class_ids)

    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)):
            return self._picture(range(len(self))[index])
        rows = np.arange(len(self))[index]
        return dataclasses.replace(
            self,
            class_ids=self.class_ids[rows],
            confidences=self.confidences[rows],
            probabilities=self.probabilities[rows],
            exits=self.exits[rows],
            macs=self.macs[rows],
            files=None if self.files is None else [self.files[row] for row in rows],
        )

    def __iter__(self):
        return (self._picture(position) for position in range(len(self)))

    def _picture(self, position):
        class_id = int(self.class_ids[position])
        return PicturePrediction(
            class_id=class_id,
            label=None if self.class_names is None else self.class_names[class_id],
            confidence=float(self.confidences[position]),
            exit=int(self.exits[position]),
            macs=int(self.macs[position]),
            cost_share=float(self.macs[position] / self.full_macs),
            file=None if self.files is None else self.files[position],
            probabilities=self.probabilities[position],
            class_names=self.class_names,
        )

    def summary(self):
        """Return the mean cost and the share of the pictures that each exit answered."""
        num_pictures = len(self)
        counts = np.bincount(self.exits, minlength=self.num_exits + 1)[1:]
        return PredictionSummary(
            num_pictures=num_pictures,
            full_macs=self.full_macs,
            mean_macs=float(self.macs.mean()) if num_pictures else None,
            mean_cost_share=float(self.cost_shares.mean()) if num_pictures else None,
            mean_confidence=float(self.confidences.mean()) if num_pictures else None,
            exit_shares=tuple((counts / max(num_pictures, 1)).tolist()),
        )

    def to_json(self, probabilities=False, indent=None):
        """Return a JSON object: `pictures`, one object each, and `summary`.

        Args:
            probabilities: bool. Whether each picture carries the probabilities of all classes.
            indent: int or None, as in `json.dumps`.
        """
        return json.dumps(
            {
                "pictures": [picture.to_dict(probabilities) for picture in self],
                "summary": dataclasses.asdict(self.summary()),
            },
            indent=indent,
        )

    def table(self, max_rows=20):
        """Return a `rich.table.Table` of the first `max_rows` pictures, for `rich.print`."""
        from rich.markup import escape
        from rich.table import Table

        hidden = len(self) - max_rows
        table = Table(caption=f"and {hidden} more" if hidden > 0 else None)
        table.add_column("picture")
        table.add_column("label")
        for heading in ("confidence", "exit", "share of the full cost"):
            table.add_column(heading, justify="right")
        for position, picture in enumerate(self[:max_rows]):
            table.add_row(
                escape(picture.file or str(position)),  # `[` begins markup
                escape(picture.label or str(picture.class_id)),
                f"{picture.confidence:.1%}",
                f"{picture.exit} of {self.num_exits}",
                f"{picture.cost_share:.1%}",
            )
        return table

    def __repr__(self):
        return f"Prediction({self.summary()})"


def _count_pictures(number):
    return f"{number} picture" + ("" if number == 1 else "s")
