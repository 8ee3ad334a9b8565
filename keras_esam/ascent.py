"""The ascent step of SAM, ASAM and ESAM: how the weights are perturbed.

With gradient `g_n` and weights `w_n` of variable `n`, and `p_n` the
probability with which SWP includes variable `n`:

    direction  d_n = g_n            magnitude  m_n = g_n          (SAM, ESAM)
    direction  d_n = w_n^2 * g_n    magnitude  m_n = |w_n| * g_n  (ASAM)

    eps_n = rho * (d_n / p_n) / N

`N` is the norm of the magnitudes, or its unbiased (Horvitz-Thompson) estimate
where only the included variables have a gradient: `N^2 = sum_n ||m_n||^2 / p_n`
over these. With all `p_n = 1` this is SAM's `rho * g / ||g||`.

Reference:

- [SAM: Foret et al., 2021](https://arxiv.org/abs/2010.01412)
- [ASAM: Kwon et al., 2021](https://arxiv.org/abs/2102.11600)
- [Momentum-SAM: Becker et al., 2024](https://arxiv.org/abs/2401.12033)
- [ESAM: Du et al., 2022](https://arxiv.org/abs/2110.03141), equation 5 with
    1/beta instead of the misprinted 1/(1-beta)
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# Number of steps over which `updated_alignment` averages.
ALIGNMENT_STEPS = 20

SCALES = ("horvitz_thompson", "authors")

# Gradient under `tf.distribute`: each replica's own, or all replicas'.
SCOPES = ("replica", "global")


@dataclasses.dataclass(frozen=True)
class Ascent:
    """Which gradient defines the perturbation.

    Args:
        gradients: Function `gradients(current, momentum)` of two lists with a
            tensor or `None` for each perturbed variable: the gradient of the
            step's own batch, and the momentum of the gradients of the updates.
            It returns such a list. A list that the rule does not need is
            `None`.
        needs_clean_pass: Boolean, whether a step computes `current`, by a pass
            at the unperturbed weights. Without it, the metrics are computed at
            the perturbed weights.
        needs_momentum: Boolean, whether the optimizer must keep `momentum`.
    """

    gradients: Callable
    needs_clean_pass: bool = True
    needs_momentum: bool = False


ASCENTS = {
    "current": Ascent(lambda current, momentum: current),
    # Looks ahead along the next update.
    "momentum": Ascent(
        lambda current, momentum: [-tensor for tensor in momentum],
        needs_clean_pass=False,
        needs_momentum=True,
    ),
}


def ascent_step(
    gradients: Sequence,
    weights: Sequence,
    rho,
    probabilities: Sequence[float],
    masks: Sequence | None = None,
    adaptive: bool = False,
    scale: str = "horvitz_thompson",
) -> tuple[list, Any]:
    """Perturbation of the weights that increases the loss the most.

    Args:
        gradients: List of dense tensors, one for each perturbed variable,
            or `None` where the loss does not depend on the variable.
        weights: List of tensors with the shapes of `gradients`.
        rho: Float or scalar tensor, radius of the neighbourhood (l2 norm of the
            perturbation).
        probabilities: List of floats in `(0, 1]`, the probability with which
            each of the variables (or, with `masks`, each scalar in it) is
            perturbed.
        masks: Optional list of boolean tensors with the shapes of `gradients`;
            scalars where it is `False` are not perturbed. Then `gradients`
            must cover all variables.
        adaptive: Boolean, whether to use ASAM's scale-invariant perturbation.
        scale: `"horvitz_thompson"` as in the module's docstring, or
            `"authors"` as in the ESAM authors' code, which takes the norm of
            the perturbed part alone.

    Returns:
        Tuple `(perturbations, norm)`: a list like `gradients` in the dtypes of
        `weights`, and the scalar `N`. A zero gradient gives a zero
        perturbation. If the gradient is not finite, neither is `norm`.
    """
    magnitudes, directions = [], []
    masks_or_none = masks or [None] * len(gradients)
    for parts in zip(gradients, weights, masks_or_none, strict=True):
        magnitude, direction = _magnitude_and_direction(*parts, adaptive)
        if masks is not None and scale == "authors" and magnitude is not None:
            magnitude = magnitude * ops.cast(parts[2], magnitude.dtype)
        magnitudes.append(magnitude)
        directions.append(direction)

    # Without masks only the included variables have a gradient, so the norm of
    # the whole gradient is estimated. Otherwise it is known.
    estimated = masks is None and scale == "horvitz_thompson"
    norm = global_norm(
        magnitudes,
        [1 / p if estimated else 1.0 for p in probabilities],
    )
    divisor = ops.where(ops.equal(norm, 0), ops.ones_like(norm), norm)
    if not isinstance(rho, (int, float)):
        rho = ops.cast(rho, norm.dtype)
    perturbations = [
        None
        if direction is None
        else ops.cast(
            direction * ops.cast((rho / p) / divisor, direction.dtype),
            weight.dtype,
        )
        for direction, weight, p in zip(
            directions, weights, probabilities, strict=True
        )
    ]
    return perturbations, norm


def _magnitude_and_direction(gradient, weight, mask, adaptive):
    """Magnitude and direction of the module's docstring, masked."""
    if gradient is None:
        return None, None
    dtype = norm_dtype(weight.dtype)
    magnitude = direction = ops.cast(gradient, dtype)
    if adaptive:
        size = ops.abs(ops.cast(weight, dtype))
        magnitude = magnitude * size
        direction = magnitude * size
    if mask is not None:
        direction = direction * ops.cast(mask, dtype)
    return magnitude, direction


def global_norm(tensors: Sequence, factors: Sequence[float] | None = None):
    """Square root of the weighted sum of the squares in all `tensors`.

    Args:
        tensors: List of tensors or `None`, of any shapes.
        factors: Optional list of floats that weight each tensor's sum of
            squares. Defaults to ones.

    Returns:
        Scalar in `float32`, or in `float64` if there is a tensor of that type.
        Zero if there is no tensor at all.
    """
    factors = factors or [1.0] * len(tensors)
    terms = [
        ops.sum(ops.square(ops.cast(tensor, norm_dtype(tensor.dtype)))) * factor
        for tensor, factor in zip(tensors, factors, strict=True)
        if tensor is not None
    ]
    if not terms:
        return ops.zeros((), dtype="float32")
    # Not `keras.backend.result_type`, which has no float64 on JAX.
    dtypes = {keras.backend.standardize_dtype(term.dtype) for term in terms}
    widest = "float64" if "float64" in dtypes else "float32"
    return ops.sqrt(sum(ops.cast(term, widest) for term in terms))


def bernoulli_masks(
    shapes: Sequence,
    probability: float,
    seed_generator: keras.random.SeedGenerator,
) -> list:
    """Boolean masks whose entries are `True` independently of each other.

    Args:
        shapes: List of shapes.
        probability: Float in `(0, 1]`, the probability of `True`.
        seed_generator: `keras.random.SeedGenerator`, advanced once per shape.

    Returns:
        List of boolean tensors with the given shapes.
    """
    return [
        ops.less(
            keras.random.uniform(shape, seed=seed_generator, dtype="float32"),
            probability,
        )
        for shape in shapes
    ]


def updated_alignment(mean, gradients, others, weights, adaptive=False):
    """Updates the running mean of the cosine between ascent and update.

    The gradient of a part of the batch deviates from the whole batch's, so a
    perturbation of the same length increases the loss less: to first order by
    this factor.

    Args:
        mean: Scalar tensor, the mean before the step.
        gradients: List of dense tensors or `None`, gradients of the ascent.
        others: The same for the update.
        weights: List of tensors with the shapes of the gradients.
        adaptive: Boolean, whether to scale both by the weights' sizes, as ASAM
            does.

    Returns:
        Scalar tensor, the mean after the step. Gradients that are zero or not
        finite leave it unchanged.
    """
    products, firsts, seconds = [], [], []
    for first, second, weight in zip(gradients, others, weights, strict=True):
        if first is None or second is None:
            continue
        first, _ = _magnitude_and_direction(first, weight, None, adaptive)
        second, _ = _magnitude_and_direction(second, weight, None, adaptive)
        products.append(ops.cast(ops.sum(first * second), mean.dtype))
        firsts.append(first)
        seconds.append(second)
    norm = ops.cast(global_norm(firsts) * global_norm(seconds), mean.dtype)
    product = sum(products, ops.zeros_like(mean))
    valid = ops.logical_and(ops.isfinite(product), ops.isfinite(norm))
    valid = ops.logical_and(valid, norm > 0)
    cosine = product / ops.where(valid, norm, ops.ones_like(norm))
    moved = mean + (cosine - mean) / ALIGNMENT_STEPS
    return ops.where(valid, moved, mean)


def rescaled_radius(rho, alignment, fraction: float):
    """The radius of an ascent on a part of the batch.

    To first order, `rho / alignment` increases the loss as much as `rho` does
    along the gradient of the whole batch.

    Args:
        rho: Float or scalar tensor.
        alignment: Scalar tensor, the mean of `updated_alignment()`. It counts
            as at least the square root of the fraction, the cosine for a
            gradient of pure noise.
        fraction: Float, the `ascent_fraction`.
    """
    if not isinstance(rho, float):
        rho = ops.cast(rho, alignment.dtype)
    return rho / ops.clip(alignment, fraction**0.5, 1.0)


def norm_dtype(dtype):
    """Dtype of a norm: half precision has too few bits for the squares."""
    dtype = keras.backend.standardize_dtype(dtype)
    return "float64" if dtype == "float64" else "float32"
