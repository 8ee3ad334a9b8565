"""The gradient that the last training step computed, for one-step ESAM."""

import contextlib

import keras
from keras import ops


class GradientMemory:
    """Keeps a gradient from one training step to the next.

    It is zero until one is stored.

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
        """Creates a variable for each of the weights, or keeps the one it has.

        Args:
            weights: List of the trainable variables.
        """
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
        """Stores a gradient.

        Args:
            gradients: List of dense tensors with the shapes of the weights, or
                `None` where the loss does not depend on the weight.
        """
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
