"""Gradients that a stateless call of a model loses on PyTorch."""

import torch


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
    with torch.enable_grad():
        result = forward(batch, None, [], per_sample=False)
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
