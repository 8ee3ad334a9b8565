"""The place of a training in the order of its subsets and in its stages."""

import contextlib

import keras
import numpy as np


class TrainingProgress:
    """Seed and counters of a training.

    They are one variable, so that every way of saving Keras variables saves
    them, with a copy of its values in Python, which planning a step reads.

    Args:
        seed: Integer in `[0, 2**31)`.

    Attributes:
        variable: `keras.Variable` of three `int32`: seed, number of executions,
            number of steps.
        seed: Integer, seed of the subsets and their order.
        num_executions: Integer, number of executions of `fit` so far.
        num_steps: Integer, number of training steps so far.
    """

    def __init__(self, seed: int):
        self.seed, self.num_executions, self.num_steps = seed, 0, 0
        # On a GPU PyTorch would wait for all work on it whenever this is read.
        is_torch = keras.backend.backend() == "torch"
        with keras.device("cpu") if is_torch else contextlib.nullcontext():
            self.variable = keras.Variable(
                self.values(),
                dtype="int32",
                trainable=False,
                autocast=False,
                name="training_progress",
            )

    def values(self) -> np.ndarray:
        """What the variable is to hold, shape `(3,)`."""
        values = [self.seed, self.num_executions, self.num_steps]
        return np.array(values, "int32")

    def write(self):
        """Writes the values in Python to the variable."""
        value = self.variable.value
        # TensorFlow's own, without Keras' checks: it is called at each step.
        assign = getattr(value, "assign", self.variable.assign)
        assign(self.values())

    def read(self, value=None):
        """Reads the values that the variable has, as after loading.

        Args:
            value: Optional array of the shape `(3,)`, where the variable's is
                held elsewhere. Defaults to the variable's value.
        """
        if value is None:
            value = self.variable.numpy()
        values = np.asarray(value).tolist()
        self.seed, self.num_executions, self.num_steps = values
