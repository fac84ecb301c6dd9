"""The whole network as one program on an engine: what stopping early is measured against."""

from keras_adaptive.graph import Stage, flatten
from keras_adaptive.inference.engines import make_engine


class WholeNetwork:
    """All exits of a model in one compiled program, on one of the engines.

    Args:
        model: Functional `keras.Model` with one input.
        engine: string, the name of an engine; see `make_engine`.
        from_logits: bool. Whether a softmax follows the last exit.
    """

    def __init__(self, model, engine, from_logits=True):
        graph = flatten(model)
        *early, last = graph.outputs
        # One stage that hands on the early exits' answers, which thus cannot be left out.
        stage = Stage(1, graph.calls, graph.inputs, last, tuple(early), graph.specs, graph.inputs)
        self._engine = make_engine(engine)
        self._engine.prepare([stage], [from_logits])

    def __call__(self, pictures):
        """Return the last exit's probabilities, `(batch, classes)`, for a NumPy batch."""
        return self._engine.run(1, [pictures], len(pictures))[0]
