"""Passes and gradients with `torch.autograd.grad`.

The passes work on detached values of the variables. Only the variables whose
gradients are taken require one, and PyTorch records only what depends on them.
With a subset from some layer on it records nothing below that layer.
"""

import contextlib
import functools

import keras
import torch
from torch.nn import attention

from keras_esam.backends import forward_pass
from keras_esam.backends import torch_random
from keras_esam.backends.defaults import apply_gradients
from keras_esam.backends.defaults import batch_size
from keras_esam.backends.defaults import check_random_numbers
from keras_esam.backends.defaults import commit
from keras_esam.backends.defaults import dense
from keras_esam.backends.defaults import each_micro_batch
from keras_esam.backends.defaults import recorded_if
from keras_esam.backends.defaults import summed
from keras_esam.backends.defaults import take
from keras_esam.backends.defaults import unscaled_loss
from keras_esam.backends.defaults import with_rows
from keras_esam.backends.torch_prefix import shared_prefix
from keras_esam.backends.torch_random import begin_micro_batch


def value(variable):
    """The tensor that a variable holds."""
    return variable.value.detach()


def compiled(function):
    """The function itself, without a graph outside the derivatives."""
    return functools.wraps(function)(torch.no_grad()(function))


def forward(model, batch, weights, state, **kwargs):
    """Like `forward_pass.forward`, with the random numbers of the step."""
    with torch_random.replayed():
        return forward_pass.forward(model, batch, weights, state, **kwargs)


def gradients(model, batch, weights, state, sources, valid=None, **kwargs):
    """Forward pass, and the gradients of its loss."""
    weights = list(weights)
    for index in sources:
        weights[index] = weights[index].detach().requires_grad_()
    variables = model.trainable_variables
    sought = {id(variables[index]) for index in sources}

    def on_assign(variable, value):
        # If a layer assigns a weight, the gradient is with respect to the new
        # value, as in Keras. It does not reach back to the assignment.
        if id(variable) in sought:
            return value.detach().requires_grad_()
        return value

    with torch.enable_grad():
        result = forward(
            model, batch, weights, state, on_assign=on_assign, **kwargs
        )
        loss = forward_pass.scaled_loss(model, result.loss, valid)
    leaves = [result.weights[index] for index in sources]
    if not leaves or not loss.requires_grad:
        return _detached(result), [None] * len(leaves)
    with backward_scope(model):
        values = torch.autograd.grad(loss, leaves, allow_unused=True)
    return _detached(result), list(values)


@contextlib.contextmanager
def backward_scope(model):
    """Context of a gradient computation, in which no weight may be read."""
    # In this thread, which has the scope.
    with (
        torch.autograd.set_multithreading_enabled(False),
        forward_pass.BackwardScope(model.trainable_variables),
    ):
        yield


def check_gradients(model, batch, weights, state, gradients):
    """Raises an error for weights of a `torch.nn.Module` or similar."""
    if None not in gradients:
        return
    variables = [
        variable
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        )
        if gradient is None
    ]
    with torch.enable_grad():
        loss = forward(model, batch, weights, state, per_sample=False).loss
    if not loss.requires_grad:
        return
    reached = torch.autograd.grad(
        loss, [v.value for v in variables], allow_unused=True
    )
    lost = [
        variable.path
        for variable, gradient in zip(variables, reached, strict=True)
        if gradient is not None
    ]
    if lost:
        raise ValueError(
            f"The gradients of the weights {lost} would be lost. They "
            "reach the loss in a way that a stateless call does not "
            "follow, as in a `torch.nn.Module`. Use Keras layers, "
            "or train with `rho=0`."
        )


def _detached(result):
    """A `ForwardPass` that keeps no graph of operations alive."""

    def detach(value):
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return value
        detached = value.detach()
        mask = keras.src.backend.common.masking.get_keras_mask(value)
        if mask is not None:
            keras.src.backend.common.masking.set_keras_mask(detached, mask)
        return detached

    return forward_pass.ForwardPass(
        keras.tree.map_structure(detach, result.y_pred),
        detach(result.loss),
        detach(result.sample_losses),
        [detach(value) for value in result.weights],
        [(variable, detach(value)) for variable, value in result.updates],
    )


def value_and_gradients(function, tensors, create_graph=False):
    """Results of a function of tensors, and its gradients."""
    leaves = tensors
    if not create_graph:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        result, others = function(leaves)
        gradients = [None] * len(leaves)
        if result.requires_grad:
            gradients = torch.autograd.grad(
                result, leaves, create_graph=create_graph, allow_unused=True
            )
    return result.detach(), others, list(gradients)


def hessian_vector_product(function, tensors, vectors):
    """The gradient of the gradient's product with the vectors."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    # The other kernels of attention have no second derivative.
    with attention.sdpa_kernel(attention.SDPBackend.MATH):
        _, _, gradients = value_and_gradients(
            function, leaves, create_graph=True
        )
    pairs = [
        (gradient, vector)
        for gradient, vector in zip(gradients, vectors, strict=True)
        # The gradient of a function that is linear in the weights is constant.
        if gradient is not None and gradient.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outputs, grad_outputs = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(
            outputs, leaves, grad_outputs, materialize_grads=True
        )
    )
