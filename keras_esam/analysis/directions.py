"""Random directions in the space of the weights.

Reference:

- [Li et al., 2018](https://arxiv.org/abs/1712.09913), "Visualizing the Loss
    Landscape of Neural Nets", section 4
"""

from collections.abc import Sequence

import keras
import numpy as np

from keras_esam.variables import is_weight

layers = keras.layers

# Layer classes, the attribute of their weight, and its axes. Other layers have
# one filter for each index of the last axis.
AXES = (
    (layers.Conv1DTranspose, "kernel", (-2,)),
    (layers.Conv2DTranspose, "kernel", (-2,)),
    (layers.Conv3DTranspose, "kernel", (-2,)),
    (layers.DepthwiseConv1D, "kernel", (-2, -1)),
    (layers.DepthwiseConv2D, "kernel", (-2, -1)),
    (layers.SeparableConv1D, "depthwise_kernel", (-2, -1)),
    (layers.SeparableConv2D, "depthwise_kernel", (-2, -1)),
    (layers.Embedding, "embeddings", (0,)),
)


def unit_pair(shapes: Sequence, rng: np.random.Generator) -> tuple[list, list]:
    """Two orthogonal Gaussian directions of length 1, lists of arrays."""
    first, second = _gaussian_pair(shapes, rng)
    first = _unit(first)
    slope = _dot(first, second)
    return first, _unit(
        [b - slope * a for a, b in zip(first, second, strict=True)]
    )


def filter_normalised_pair(
    weights: Sequence, filter_axes: Sequence, rng: np.random.Generator
) -> tuple[list, list]:
    """Two orthogonal Gaussian directions with the weights' filter norms.

    They have the shapes of `weights` and are orthogonal in each filter of more
    than a single weight. `filter_axes` comes from the function of this name.
    """
    pairs = zip(
        weights,
        filter_axes,
        *_gaussian_pair([weight.shape for weight in weights], rng),
        strict=True,
    )
    firsts, seconds = [], []
    for weight, axes, first, second in pairs:
        if axes is None:
            firsts.append(np.zeros_like(first))
            seconds.append(np.zeros_like(second))
            continue
        filters = {axis % weight.ndim for axis in axes}
        inner = tuple(set(range(weight.ndim)) - filters)
        sizes = [weight.shape[axis] for axis in inner]
        if np.prod(sizes) > 1:
            slope = _sums(first * second, inner) / _sums(first**2, inner)
            second = second - slope * first
        norm = np.sqrt(_sums(weight.astype(first.dtype) ** 2, inner))
        for direction, result in ((first, firsts), (second, seconds)):
            length = np.sqrt(_sums(direction**2, inner))
            result.append(direction * (norm / length))
    return firsts, seconds


def filter_axes(model: keras.Model) -> list[tuple[int, ...] | None]:
    """The axes that count the filters, for each of the weights.

    A filter is what computes one output: a column of a dense or recurrent
    kernel, the part of a convolution's kernel for one channel, a row of an
    embedding. Offsets and all variables with fewer than two axes, as in
    BatchNormalization, have `None`.
    """
    axes_by_id = {}
    for layer in model._flatten_layers():
        for kind, attribute, axes in AXES:
            if isinstance(layer, kind):
                axes_by_id[id(getattr(layer, attribute))] = axes
        if isinstance(layer, layers.EinsumDense):
            axes_by_id[id(layer.kernel)] = _output_axes(layer.equation)
    return [
        None
        # The bias of attention and recurrent layers may have two axes.
        if len(variable.shape) < 2 or "bias" in variable.name
        else axes_by_id.get(id(variable), (-1,))
        for variable in model.trainable_variables
        if is_weight(variable)
    ]


def _output_axes(equation):
    """Axes of the kernel that are axes of the output: `(1,)` of `ab,bc->ac`."""
    operands, output = equation.split("->")
    kernel = operands.split(",")[1]
    return tuple(axis for axis, name in enumerate(kernel) if name in output)


def _gaussian_pair(shapes, rng):
    """In float64, so that the sums are exact for large networks too."""
    pairs = [rng.standard_normal((2, *shape)) for shape in shapes]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _dot(first, second):
    return sum(np.vdot(a, b) for a, b in zip(first, second, strict=True))


def _unit(arrays):
    length = np.sqrt(_dot(arrays, arrays))
    return [array / length for array in arrays]


def _sums(array, axes):
    return np.sum(array, axis=axes, keepdims=True)
