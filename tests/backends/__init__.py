"""What tests need that run on every Keras backend."""

import keras
import pytest

BACKEND = keras.backend.backend()
tensorflow_only = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="about TensorFlow's functions or tensors"
)
compiled_steps = pytest.mark.skipif(
    BACKEND == "torch",
    reason="PyTorch has no compiled steps, nor several in one execution",
)


def gradients_of(loss, variables):
    """Gradients of a plain Keras computation, by the backend's own means."""
    if BACKEND == "jax":
        import jax

        def loss_at(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(pairs, collect_losses=True):
                return loss()

        return jax.grad(loss_at)([variable.value for variable in variables])
    if BACKEND == "torch":
        import torch

        values = [variable.value for variable in variables]
        return list(torch.autograd.grad(loss(), values))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    return tape.gradient(value, variables)
