"""Derivatives with `jax.grad` and `jax.jvp`."""

import contextlib

import jax

from keras_esam.trainers import passes

compiled = jax.jit


def value(variable):
    """The array that a variable holds."""
    return variable.value


def forward(model, batch, weights, state, training):
    """See `passes.forward`."""
    return passes.forward(
        model, batch, weights, state, per_sample=False, training=training
    )


def value_and_gradients(function, tensors):
    """See `keras_esam.analysis.derivatives`; no gradient is `None`."""
    differentiated = jax.value_and_grad(function, has_aux=True)
    (result, others), gradients = differentiated(tensors)
    return result, others, gradients


def hessian_vector_product(function, tensors, vectors):
    """The derivative of the gradient along the vectors."""

    def gradients(tensors):
        return jax.grad(function, has_aux=True)(tensors)[0]

    return jax.jvp(gradients, (tensors,), (vectors,))[1]


def backward_scope(model):
    """Nothing: the backward pass reads no variable."""
    del model
    return contextlib.nullcontext()


def check_gradients(model, batch, gradients):
    """Nothing: all that JAX differentiates is a function of its arguments."""
    del model, batch, gradients
