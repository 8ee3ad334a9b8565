"""The state of a training beside weights and optimizer: a resume goes on.

That is the place in the order of the subsets and in the stages of `beta` and
`gamma`; the states of all random layers, which Keras does not save, so that a
resumed run draws the same dropout masks; and for one-step ESAM the gradient of
the last update.
"""

import contextlib

import keras
import numpy as np
from keras import ops


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
        """Reads the variable, as after loading, or an array in its place."""
        if value is None:
            value = self.variable.numpy()
        values = np.asarray(value).tolist()
        self.seed, self.num_executions, self.num_steps = values


class GradientMemory:
    """Keeps a gradient from one training step to the next, at first zero.

    The variables are no weights of the model. Their paths are those of the
    weights within `previous_gradient`.
    """

    def __init__(self):
        self.variables = []
        self._by_weight = {}

    def variable_of(self, weight):
        """The variable with the gradient of a weight, or `None`."""
        _, variable = self._by_weight.get(id(weight), (None, None))
        return variable

    def build(self, weights):
        """Creates a variable for each weight, or keeps the one that it has."""
        # The weights are kept too, so that their ids stay theirs.
        self._by_weight = {
            id(weight): self._by_weight.get(id(weight))
            or (weight, _zeros_like(weight))
            for weight in weights
        }
        self.variables = [variable for _, variable in self._by_weight.values()]

    def clear(self):
        """Back to zero, as before the first step."""
        for variable in self.variables:
            variable.assign(ops.zeros_like(variable.value))

    def read(self) -> list:
        """The gradient: list of tensors with the shapes of the weights."""
        return [ops.convert_to_tensor(variable) for variable in self.variables]

    def store(self, gradients):
        """Stores a list of dense tensors, `None` where there is no gradient."""
        for variable, gradient in zip(self.variables, gradients, strict=True):
            if gradient is not None:
                variable.assign(ops.cast(gradient, variable.dtype))


def _zeros_like(weight):
    *scopes, name = weight.path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in ["previous_gradient", *scopes]:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(
            ops.zeros(weight.shape, weight.dtype),
            trainable=False,
            autocast=False,
            name=name,
        )


def save(model, store):
    """Saves the state of an `ESAMModel` in a dict or HDF5 group of arrays."""
    model._read_progress()
    store["seed"] = np.asarray(model.seed)
    store["num_executions"] = np.asarray(model._progress.num_executions)
    store["num_steps"] = np.asarray(model._progress.num_steps)
    for index, variable in enumerate(random_states(model)):
        store[f"random_state_{index}"] = variable
    if model._method.ascent_rule.needs_memory:
        for key, gradient in _previous_gradients(model):
            store[key] = gradient


def check(model, store):
    """Raises an error if a store is not one that `save` wrote of this network.

    Raises:
        ValueError: If the store is that of a plain network, or that of a
            network with other random layers.
    """
    keys = list(store.keys())
    if "num_executions" not in keys:
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
    model._gradient_memory.clear()
    if model._method.ascent_rule.needs_memory and model.built:
        model._build_gradient_memory()
        saved = set(store.keys())
        for key, gradient in _previous_gradients(model):
            if key in saved:
                gradient.assign(store[key])
    model._progress.num_executions = int(np.asarray(store["num_executions"]))
    model._progress.num_steps = int(np.asarray(store["num_steps"]))
    model._progress.write()


def random_states(model) -> list:
    """The variables of an `ESAMModel` that are states of seeds."""
    others = [*model.weights, *model._training_variables]
    known = {id(variable) for variable in others}
    return [v for v in model.variables if id(v) not in known]


def _previous_gradients(model):
    """Pairs `(key, variable)`, by the place of the weight among all weights,
    since other layers may be frozen in the model that loads it."""
    for index, weight in enumerate(model.model.weights):
        gradient = model._gradient_memory.variable_of(weight)
        if gradient is not None:
            yield f"previous_gradient_{index}", gradient
