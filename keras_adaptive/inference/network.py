"""What the predictor must know of a network, whatever holds its weights."""

from typing import Protocol


class Network(Protocol):
    """The facts of a network with exits; the programs that run it are the engine's.

    `KerasNetwork` reads them from a Keras model, `ExportedNetwork` from a folder of exported
    stages. Only the former needs Keras.

    Attributes:
        name: string, for messages.
        input_shape: tuple `(height, width, channels)` in pixels; height and width may be `None`,
            where the network takes any.
        input_dtype: string, the dtype of the batches that stage 1 takes.
        num_exits: int.
        num_classes: int.
        class_names: sequence of strings, or `None`.
        thresholds: tuple of floats, one per exit, that were chosen for the network; or `None`.
        input_rule: dict that says how files are brought to the input's size, see
            `InputRule.from_dict`; or `None`.
    """

    name: str
    input_shape: tuple
    input_dtype: str
    num_exits: int
    num_classes: int
    class_names: tuple | None
    thresholds: tuple | None
    input_rule: dict | None

    def count_macs(self, exits, size):
        """Return what pictures cost.

        Args:
            exits: tuple of ints, the exits in use, increasing from 1 or more.
            size: tuple of ints, height and width of the pictures in pixels.

        Returns:
            Tuple of a list of ints, the multiply-adds of a picture that leaves at each exit in use;
            and an int, those of the whole network.
        """
