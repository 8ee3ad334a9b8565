"""Gradients on PyTorch, and those that a stateless call of a model loses."""

import contextlib

import torch

from keras_esam.trainers.backward_scope import BackwardScope


@contextlib.contextmanager
def backward_scope(model):
    """Context of a gradient computation, see `BackwardScope`."""
    # In this thread, the one in which the scope is.
    with (
        torch.autograd.set_multithreading_enabled(False),
        BackwardScope(model.trainable_variables),
    ):
        yield


def check_gradients(model, batch, gradients, forward):
    """Raises an error if a gradient is missing which plain Keras has.

    Args:
        model: `keras.Model`.
        batch: Tuple `(x, y, sample_weight)`.
        gradients: List of the gradients of the trainable variables, `None`
            where there is none.
        forward: Function with the arguments of `passes.forward` after the
            model.

    Raises:
        ValueError: If the loss depends on a variable without a gradient.
    """
    missing = [
        variable
        for variable, gradient in zip(
            model.trainable_variables, gradients, strict=True
        )
        if gradient is None
    ]
    if not missing:
        return
    # Regularizers ask the scope for the values.
    values = [variable.value for variable in model.trainable_variables]
    with torch.enable_grad():
        result = forward(batch, values, [], per_sample=False)
    if not result.loss.requires_grad:
        return
    plain = torch.autograd.grad(
        result.loss, [v.value for v in missing], allow_unused=True
    )
    lost = [
        variable.path
        for variable, gradient in zip(missing, plain, strict=True)
        if gradient is not None
    ]
    if lost:
        raise ValueError(
            f"The gradients of the weights {lost} would be lost. They "
            "reach the loss in a way that a stateless call does not "
            "follow, as those of a `torch.nn.Module` do. Use Keras layers, "
            "or train with `rho=0`."
        )
