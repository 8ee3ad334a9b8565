"""Checks of the arguments of `keras_esam.analysis`."""

import keras

from keras_esam import arguments
from keras_esam import selection
from keras_esam.backends import backend


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
            f"Received: model={arguments.short(model)} of type {type(model)}"
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
    if backend is None:
        raise ValueError(
            'It needs the "tensorflow", "jax" or "torch" backend of Keras. '
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )


def check_twice_differentiable(model):
    """Checks that a model has no layers without second derivatives.

    Raises:
        ValueError: If it has float8 layers.
    """
    float8 = [
        layer.name
        for layer in getattr(model, "_flatten_layers", list)()
        if isinstance(
            layer.dtype_policy, keras.dtype_policies.QuantizedFloat8DTypePolicy
        )
    ]
    if float8:
        raise ValueError(
            "`model` must have no float8 layers, since the Hessian is not "
            "defined through float8 rounding. Copy the weights to a network "
            f"that was not quantized. Received: model={model} with the float8 "
            f"layers {float8}"
        )


def check_gamma(gamma, num_samples: int) -> float:
    """Checks that there are samples in B+ and in B-.

    Raises:
        TypeError: If `gamma` is no number.
        ValueError: If it leaves no samples for B-.
    """
    fraction = arguments.check_fraction("gamma", gamma)
    if not isinstance(fraction, float):
        raise TypeError(
            "`gamma` must be a number. "
            f"Received: gamma={arguments.short(gamma)} of type {type(gamma)}"
        )
    if selection.num_selected(num_samples, fraction) == num_samples:
        raise ValueError(
            "`gamma` must leave samples for B-, and of the "
            f"{num_samples} samples all are in B+. Received: gamma={gamma}"
        )
    return fraction
