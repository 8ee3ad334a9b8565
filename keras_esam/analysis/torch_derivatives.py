"""Derivatives with `torch.autograd.grad`."""

import functools

import torch
from torch.nn import attention

from keras_esam.trainers import passes
from keras_esam.trainers import torch_gradients

backward_scope = torch_gradients.backward_scope


def value(variable):
    """The tensor that a variable holds."""
    return variable.value.detach()


def compiled(function):
    """The function itself, without a graph outside of the derivatives."""
    return functools.wraps(function)(torch.no_grad()(function))


def forward(model, batch, weights, state, training=True, **kwargs):
    """See `passes.forward`; leaves PyTorch's global generators as they are."""
    kwargs = {"per_sample": False, **kwargs}
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = [torch.cuda.current_device()] if on_gpu else []
    with torch.random.fork_rng(devices=devices):
        return passes.forward(
            model, batch, weights, state, training=training, **kwargs
        )


def value_and_gradients(function, tensors, create_graph=False):
    """See `keras_esam.analysis.derivatives`."""
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
        # Of what is linear in the weights the gradient is a constant.
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


def check_gradients(model, batch, gradients):
    """See `torch_gradients.check_gradients`."""
    torch_gradients.check_gradients(
        model, batch, gradients, functools.partial(forward, model)
    )
