"""Checks of the arguments of `keras_esam.analysis`."""

import math
import numbers

import keras

from keras_esam.analysis.derivatives import derivatives


def check_model(model):
    """Checks that a model is compiled and has weights.

    Raises:
        TypeError: If it is no `keras.Model`.
        ValueError: If it is not built or not compiled or has no trainable
            weights, or if Keras' backend has no derivatives.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be an instance of `keras.Model`. "
            f"Received: model={model} of type {type(model)}"
        )
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled, since the loss is that given to "
            f"`compile()`. Received: model={model}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built, call it on data before. "
            f"Received: model={model}"
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`model` must have trainable weights. Received: model={model}"
        )
    if derivatives is None:
        raise ValueError(
            'It needs the "tensorflow", "jax" or "torch" backend of Keras. '
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )


def check_positive(**numbers_by_name):
    """Checks that all of the numbers are positive and finite."""
    for name, number in numbers_by_name.items():
        is_number = isinstance(number, numbers.Real)
        if not is_number or isinstance(number, bool):
            raise TypeError(
                f"`{name}` must be a number. "
                f"Received: {name}={number!r} of type {type(number)}"
            )
        if not 0 < number < math.inf:
            raise ValueError(
                f"`{name}` must be positive and finite. "
                f"Received: {name}={number}"
            )


def check_count(minimum: int = 1, **counts_by_name):
    """Checks that all of the counts are integers of at least `minimum`."""
    for name, count in counts_by_name.items():
        is_integer = isinstance(count, numbers.Integral)
        if not is_integer or isinstance(count, bool):
            raise TypeError(
                f"`{name}` must be an integer. "
                f"Received: {name}={count!r} of type {type(count)}"
            )
        if count < minimum:
            raise ValueError(
                f"`{name}` must be at least {minimum}. Received: {name}={count}"
            )
