"""Passes and gradients with `jax.grad`."""

import contextlib

import jax
import keras
from jax.experimental import sparse

from keras_esam.backends import defaults
from keras_esam.backends import forward_pass
from keras_esam.backends.defaults import batch_size
from keras_esam.backends.defaults import begin_micro_batch
from keras_esam.backends.defaults import check_random_numbers
from keras_esam.backends.defaults import commit
from keras_esam.backends.defaults import dense
from keras_esam.backends.defaults import each_micro_batch
from keras_esam.backends.defaults import recorded_if
from keras_esam.backends.defaults import shared_prefix
from keras_esam.backends.defaults import summed
from keras_esam.backends.defaults import unscaled_loss
from keras_esam.backends.defaults import with_rows

compiled = jax.jit
forward = forward_pass.forward


def value(variable):
    """The array that a variable holds."""
    return variable.value


def gradients(model, batch, weights, state, sources, valid=None, **kwargs):
    """Forward pass, and the gradients of its loss."""
    assigned = []

    def loss_at(values):
        perturbed = list(weights)
        for index, value in zip(sources, values, strict=True):
            perturbed[index] = value
        result = forward(model, batch, perturbed, state, **kwargs)
        assigned[:] = [variable for variable, _ in result.updates]
        new_values = [value for _, value in result.updates]
        outputs = (result.y_pred, result.loss, result.sample_losses)
        loss = forward_pass.scaled_loss(model, result.loss, valid)
        return loss, (*outputs, result.weights, new_values)

    values, (*outputs, new_values) = jax.grad(loss_at, has_aux=True)(
        [weights[index] for index in sources]
    )
    updates = list(zip(assigned, new_values, strict=True))
    return forward_pass.ForwardPass(*outputs, updates), values


def backward_scope(model):
    """Nothing: the backward pass reads no variable."""
    del model
    return contextlib.nullcontext()


def check_gradients(model, batch, weights, state, gradients):
    """Nothing: what JAX traces in a step is a function of its arguments. (What
    it traced before, in a function that it knows, is constant, and Keras alone
    does not train it either.)"""
    del model, batch, weights, state, gradients


def apply_gradients(model, plan, gradients):
    """See `defaults.apply_gradients`."""
    optimizer = model.optimizer
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        defaults.apply_gradients(model, plan, gradients)
        return
    # It assigns within conditionals, which only `stateless_apply` avoids.
    weights = model.trainable_variables
    values, optimizer_values = optimizer.stateless_apply(
        [variable.value for variable in optimizer.variables],
        gradients,
        [variable.value for variable in weights],
    )
    for variable, value in zip(
        [*weights, *optimizer.variables],
        [*values, *optimizer_values],
        strict=True,
    ):
        variable.assign(value)


def take(tensor, indices):
    """See `defaults.take`."""
    if isinstance(tensor, sparse.BCOO):
        return tensor[indices]
    return defaults.take(tensor, indices)


def value_and_gradients(function, tensors):
    """Results of a function of tensors, and its gradients."""
    differentiated = jax.value_and_grad(function, has_aux=True)
    (result, others), gradients = differentiated(tensors)
    return result, others, gradients


def hessian_vector_product(function, tensors, vectors):
    """The derivative of the gradient along the vectors."""

    def gradients(tensors):
        return jax.grad(function, has_aux=True)(tensors)[0]

    return jax.jvp(gradients, (tensors,), (vectors,))[1]
