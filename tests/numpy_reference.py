"""ESAM's training step written out by hand in NumPy float64.

A network `x -> tanh(x W1 + b1) W2 + b2` with softmax cross-entropy, an l2
penalty on `W1`, and SGD with momentum. Nothing here knows of Keras or of the
library's code; subsets, masks and probabilities are given as input.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass
class Step:
    """Arguments of one step; see `keras_esam.ESAMModel`.

    `ascent` is the direction of the perturbation if it is not the gradient of
    the part of the batch: the last update's for `ascent="momentum"`. `scores`
    are the random numbers of `rank_by="random"`. `alignment` is the running
    mean before the step, and `cosines` gets those of the step, one for each
    part of the batch, and their numbers of samples.
    """

    rho: float
    gamma: float = 1.0
    rank_by: str = "sharpness"
    adaptive: bool = False
    scale: str = "horvitz_thompson"
    subset: tuple = (0, 1, 2, 3)
    probabilities: tuple = (1.0, 1.0, 1.0, 1.0)
    masks: list | None = None
    ascent: list | None = None
    scores: np.ndarray | None = None
    ascent_fraction: float = 1.0
    alignment: float = 1.0
    cosines: list = dataclasses.field(default_factory=list)


def forward(params, x):
    w1, b1, w2, b2 = params
    hidden = np.tanh(x @ w1 + b1)
    return hidden, hidden @ w2 + b2


def sample_losses(params, x, y, weights):
    """Weighted cross-entropy of each sample, shape `(batch_size,)`."""
    _, logits = forward(params, x)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -weights * log_probs[np.arange(len(y)), y]


def gradient(params, x, y, weights, penalty):
    """Gradient of the mean of `sample_losses` plus `penalty * sum(W1^2)`."""
    w1, _, w2, _ = params
    hidden, logits = forward(params, x)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    probs[np.arange(len(y)), y] -= 1
    d_logits = probs * weights[:, None] / len(y)
    d_hidden = (d_logits @ w2.T) * (1 - hidden**2)
    return [
        x.T @ d_hidden + 2 * penalty * w1,
        d_hidden.sum(axis=0),
        hidden.T @ d_logits,
        d_logits.sum(axis=0),
    ]


def perturbation(params, grads, step):
    """eps of every parameter; zeros outside of the step's subset."""
    eps = [np.zeros_like(p) for p in params]
    if step.masks is not None:
        masks = step.masks
    else:
        masks = [
            np.full(p.shape, i in step.subset) for i, p in enumerate(params)
        ]
    squares = 0.0
    for i, (p, g, mask) in enumerate(zip(params, grads, masks, strict=True)):
        m = np.abs(p) * g if step.adaptive else g
        if step.scale == "authors":
            squares += ((m * mask) ** 2).sum()
        elif step.masks is not None:
            squares += (m**2).sum()
        elif i in step.subset:
            squares += (m**2).sum() / step.probabilities[i]
    norm = math.sqrt(squares) or 1.0
    rho = step.rho
    if step.ascent_fraction < 1:
        rho /= min(max(step.alignment, math.sqrt(step.ascent_fraction)), 1)
    for i, (p, g, mask) in enumerate(zip(params, grads, masks, strict=True)):
        direction = p**2 * g if step.adaptive else g
        eps[i] = rho * mask * direction / step.probabilities[i] / norm
    return eps


def cosine(params, first, second, step):
    """Cosine of the angle between two gradients of the perturbed parameters."""
    vectors = [
        np.concatenate(
            [
                (np.abs(params[i]) * g[i] if step.adaptive else g[i]).ravel()
                for i in step.subset
            ]
        )
        for g in (first, second)
    ]
    return np.dot(*vectors) / np.prod([np.linalg.norm(v) for v in vectors])


def scores(params, perturbed, x, y, weights, step):
    """What the samples are ranked by, shape `(batch_size,)`."""
    if step.rank_by == "random":
        return step.scores
    at_perturbed = sample_losses(perturbed, x, y, weights)
    if step.rank_by == "sharpness":
        return at_perturbed - sample_losses(params, x, y, weights)
    if step.ascent is not None:
        return at_perturbed
    return sample_losses(params, x, y, weights)


def kept_samples(params, perturbed, x, y, weights, step):
    n = len(y)
    count = max(1, math.ceil(step.gamma * n - 1e-9))
    ranking = -scores(params, perturbed, x, y, weights, step)
    return np.sort(np.argsort(ranking, kind="stable")[:count])


def sharpness_aware_gradient(params, x, y, weights, step, penalty):
    """The gradient that the optimizer gets."""
    perturbed = params
    if step.rho > 0:
        seen = slice(None)
        if step.ascent_fraction < 1:
            count = max(1, math.ceil(step.ascent_fraction * len(y) - 1e-9))
            count = min(count + count % 2, len(y))
            seen = [place * len(y) // count for place in range(count)]
        grads = step.ascent or gradient(
            params, x[seen], y[seen], weights[seen], penalty
        )
        eps = perturbation(params, grads, step)
        perturbed = [p + e for p, e in zip(params, eps, strict=True)]
    if step.rho > 0 and step.gamma < 1:
        kept = kept_samples(params, perturbed, x, y, weights, step)
        x, y, weights = x[kept], y[kept], weights[kept]
    update = gradient(perturbed, x, y, weights, penalty)
    if step.rho > 0 and step.ascent_fraction < 1:
        step.cosines.append((cosine(params, grads, update, step), len(y)))
    return update


def mean_gradient(params, parts, step, penalty):
    """Mean over parts `(x, y, weights)` of a batch, by numbers of samples."""
    total = sum(len(y) for _, y, _ in parts)
    mean = [np.zeros_like(p) for p in params]
    for x, y, weights in parts:
        grads = sharpness_aware_gradient(params, x, y, weights, step, penalty)
        mean = [
            m + g * len(y) / total for m, g in zip(mean, grads, strict=True)
        ]
    return mean


def train_step(params, velocity, parts, step, lr, momentum, penalty):
    """One step on a batch in parts, each with a perturbation of its own.

    Returns the new parameters, the new velocity and the gradient.
    """
    grads = mean_gradient(params, parts, step, penalty)
    velocity = [
        momentum * v - lr * g for v, g in zip(velocity, grads, strict=True)
    ]
    params = [p + v for p, v in zip(params, velocity, strict=True)]
    return params, velocity, grads
