"""The state that a resumed training needs beside weights and optimizer.

It includes the position in the order of the subsets, in the stages of `beta`
and `gamma` and before `start`. It also includes the states of all random
layers, which Keras does not save: a resumed run draws the same dropout masks.
"""

import contextlib

import keras
import numpy as np

from keras_esam.ascent import norm_dtype


class TrainingProgress:
    """Seed, counters and ascent alignment of a training.

    They are variables, so that every way of saving Keras variables saves them.
    Seed and counters have a copy in Python, which planning a step reads.

    Args:
        seed: Integer in `[0, 2**31)`.
        dtype: String, dtype of the weights.

    Attributes:
        variable: `keras.Variable` of three `int32`: seed, number of executions,
            number of steps.
        alignment: `keras.Variable`, scalar. With `ascent_fraction < 1` it is a
            running mean over the steps, see `ascent.updated_alignment()`.
        seed: Integer, seed of the subsets and their order.
        num_executions: Integer, number of executions of `fit` so far.
        num_steps: Integer, number of training steps so far.
        last_begin: Integer, `num_steps` before the last execution. It is not
            saved.
    """

    def __init__(self, seed: int, dtype: str):
        self.seed, self.num_executions, self.num_steps = seed, 0, 0
        self.last_begin = 0
        # On a GPU each read would make PyTorch wait for all work on it.
        is_torch = keras.backend.backend() == "torch"
        with keras.device("cpu") if is_torch else contextlib.nullcontext():
            self.variable = keras.Variable(
                self.values(),
                dtype="int32",
                trainable=False,
                autocast=False,
                name="training_progress",
            )
        self.alignment = keras.Variable(
            1.0,
            dtype=norm_dtype(dtype),
            trainable=False,
            autocast=False,
            name="alignment",
        )

    def values(self) -> np.ndarray:
        """Value for the variable, shape `(3,)`."""
        values = [self.seed, self.num_executions, self.num_steps]
        return np.array(values, "int32")

    def write(self):
        """Writes the Python values to the variable."""
        value = self.variable.value
        # TensorFlow's own, without Keras' checks: this runs at each step.
        assign = getattr(value, "assign", self.variable.assign)
        assign(self.values())

    def read(self, value=None):
        """Reads the variable, as after loading, or a given array."""
        if value is None:
            value = self.variable.numpy()
        values = np.asarray(value).tolist()
        self.seed, self.num_executions, self.num_steps = values


def save(model, store):
    """Saves the state of an `ESAMModel` in a dict or HDF5 group of arrays."""
    model._read_progress()
    store["seed"] = np.asarray(model.seed)
    store["num_executions"] = np.asarray(model._progress.num_executions)
    store["num_steps"] = np.asarray(model._progress.num_steps)
    store["alignment"] = model._progress.alignment
    for index, variable in enumerate(random_states(model)):
        store[f"random_state_{index}"] = variable


def check(model, store):
    """Checks that `save` wrote a store for this network.

    Raises:
        ValueError: If the store comes from a plain network, or from a network
            with other random layers.
    """
    keys = list(store.keys())
    if not {"num_executions", "alignment"} <= set(keys):
        raise ValueError(
            f"The file must be one that an `{type(model).__name__}` was "
            "saved to. To load the weights of a plain network, call "
            "`model.model.load_weights()`. "
            f"Received: a file without the state of `{model.name}`"
        )
    num_states = len(random_states(model))
    num_saved = sum(key.startswith("random_state_") for key in keys)
    if num_saved != num_states:
        raise ValueError(
            f"`{model.name}` has {num_states} random states and the file "
            f"has {num_saved}. The saved network had other random layers."
        )


def load(model, store):
    """Restores what `save` saved."""
    # Setting it resets the random states, so it comes first.
    has_drawn_seed = model._has_drawn_seed
    model.seed = int(np.asarray(store["seed"]))
    model._has_drawn_seed = has_drawn_seed
    for index, variable in enumerate(random_states(model)):
        variable.assign(store[f"random_state_{index}"])
    model._progress.alignment.assign(store["alignment"])
    model._progress.num_executions = int(np.asarray(store["num_executions"]))
    model._progress.num_steps = int(np.asarray(store["num_steps"]))
    model._progress.write()


def random_states(model) -> list:
    """The variables of an `ESAMModel` that are states of seeds."""
    others = [*model.weights, *model._training_variables]
    known = {id(variable) for variable in others}
    return [v for v in model.variables if id(v) not in known]
