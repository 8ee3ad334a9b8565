"""What a gradient computation may read."""

import keras


class BackwardScope(keras.StatelessScope):
    """Scope of a gradient computation, in which no weight is to be read.

    Other variables still have the values that the forward pass started from,
    so a recomputation has its dropout masks, and what it assigns is dropped.

    Args:
        weights: List of the trainable variables.
    """

    def __init__(self, weights):
        super().__init__()
        self._weights = {id(variable) for variable in weights}

    def get_current_value(self, variable):
        if id(variable) in self._weights:
            raise ValueError(
                f"The weight `{variable.path}` is read when gradients are "
                "computed, as within `keras.remat` or `tf.recompute_grad`, and "
                "its own gradient would be lost. Do not use these around "
                "trainable weights, or train with `rho=0`."
            )
        return super().get_current_value(variable)
