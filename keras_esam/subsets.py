"""SWP (stochastic weight perturbation): which variables a step perturbs.

A training step saves the gradients of unperturbed variables only if it was
compiled without them. So there is a small pool of subsets, drawn once, with one
compiled step each. Training cycles through the pool in a new random order each
round. Everything here is a function of the seed and of the number of calls of
the compiled step: a resumed run continues as if it had not stopped, and all
replicas and workers use the same subset.

A granularity is an entry of `GRANULARITIES`. The subsets of `"variable"` are
drawn at random. The subsets of `"depth"` reach from some variable to the
output. Layers below it are the same in the clean and in the perturbed forward
pass and need to run only once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

# Each subset costs one compilation. Three by depth were as accurate as five in
# our benchmarks, at a beta of at least a half. By variable, the pool has the
# size nearest to the preferred one, up to the largest, with which every
# variable can be in exactly the fraction beta of the subsets.
PREFERRED_POOL_SIZE = 5
PREFERRED_BY_DEPTH = 3
LARGEST_POOL_SIZE = 10
SMALLEST_BETA = 0.01


@dataclasses.dataclass(frozen=True)
class SubsetPool:
    """Subsets of the trainable variables, and how probable each variable is.

    Args:
        subsets: Tuple of subsets, each a sorted tuple of indices of variables.
        probabilities: Tuple with the inclusion probability of each variable:
            the fraction of the subsets that contain it. Variables that are no
            weights, such as the scales of float8 training, are in no subset.
    """

    subsets: tuple[tuple[int, ...], ...]
    probabilities: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Granularity:
    """Which weights are perturbed together.

    Args:
        draw: Function `draw(num_variables, beta, size, seed)` that returns a
            `SubsetPool`. The variables are in the order from the input to the
            output of the network, and `beta` is their expected fraction.
        pool_size: Function `pool_size(beta, preferred)` of a `beta` less than 1
            and an optional preferred size that returns the number of subsets.
        by_scalar: Boolean, whether the step draws from the scalars of the
            subset, each with probability `beta`.
    """

    draw: Callable
    pool_size: Callable
    by_scalar: bool = False


def size_by_depth(beta: float, preferred: int | None = None) -> int:
    """The preferred size, or `1 / beta` rounded up if that is more, so that no
    variable is left out. Defaults to 3 for a `beta` of at least 0.5, or 5."""
    if preferred is None:
        preferred = PREFERRED_BY_DEPTH if beta >= 0.5 else PREFERRED_POOL_SIZE
    return max(preferred, -_floor(-1 / beta))


def size_by_variable(beta: float, preferred: int | None = None) -> int:
    """The size `K` nearest to the preferred one, at most 10, for which
    `beta * K` is whole. If there is none, as `size_by_depth`. Defaults to 5."""
    preferred = preferred or PREFERRED_POOL_SIZE
    exact = [
        size
        for size in range(2, LARGEST_POOL_SIZE + 1)
        if _is_whole(beta * size)
    ]
    if not exact:
        return size_by_depth(beta, preferred)
    return min(exact, key=lambda size: abs(size - preferred))


@functools.lru_cache(maxsize=16)
def make_pool(
    granularity: str,
    order: tuple[int, ...],
    beta: float,
    seed: int,
    num_variables: int | None = None,
    preferred_size: int | None = None,
) -> SubsetPool:
    """The pool of subsets that training goes through.

    Args:
        granularity: String, a key of `GRANULARITIES`.
        order: Tuple of the indices of the variables that are weights, in the
            order from the input to the output of the network.
        beta: Float in `(0, 1]`, the expected fraction of these variables.
        seed: Integer.
        num_variables: Optional integer, number of all trainable variables.
            Defaults to the number in `order`.
        preferred_size: Optional integer, see `Granularity`.
    """
    rule = GRANULARITIES[granularity]
    size = 1 if beta == 1 else rule.pool_size(beta, preferred_size)
    pool = rule.draw(len(order), beta, size, seed)
    probabilities = [0.0] * (num_variables or len(order))
    for variable, probability in zip(order, pool.probabilities, strict=True):
        probabilities[variable] = probability
    return SubsetPool(
        subsets=tuple(
            tuple(sorted(order[place] for place in subset))
            for subset in pool.subsets
        ),
        probabilities=tuple(probabilities),
    )


def depth_pool(
    num_variables: int, beta: float, size: int, seed: int | None = None
) -> SubsetPool:
    """A pool of subsets that reach from some variable to the last one.

    The sizes of the subsets are spread evenly, their mean is `beta`, and the
    largest has all variables. For `beta >= 0.5` the covered fractions run from
    `2 * beta - 1` to 1. For smaller `beta` all but the largest run from 0 to
    what makes the mean right. Sizes are whole numbers of variables and at least
    one, so with few variables the mean is larger than a small `beta`.

    Args:
        num_variables: Integer, the number of trainable variables, which are in
            the order from the input to the output of the network.
        beta: Float in `(0, 1]`, the expected fraction of the variables.
        size: Integer, number of subsets.
        seed: Not used.
    """
    del seed
    if beta >= 0.5:
        fractions = np.linspace(2 * beta - 1, 1, size)
    else:
        highest = 2 * (beta * size - 1) / (size - 1)
        fractions = [*np.linspace(0, highest, size - 1), 1]
    # A network of frozen weights may have no variables.
    smallest = min(1, num_variables)
    counts = [
        max(smallest, round(fraction * num_variables)) for fraction in fractions
    ]
    if size == 1:
        counts = [num_variables]
    firsts = [num_variables - count for count in counts]
    return SubsetPool(
        subsets=tuple(tuple(range(f, num_variables)) for f in firsts),
        probabilities=tuple(
            sum(first <= variable for first in firsts) / size
            for variable in range(num_variables)
        ),
    )


def draw_pool(
    num_variables: int, beta: float, size: int, seed: int
) -> SubsetPool:
    """Draws a balanced pool of subsets of the variables.

    Every variable is in `beta * K` of the `K = size` subsets. A fractional
    number is rounded up for some variables and down for the others, so that the
    mean over the variables is `beta`. The sizes of any two subsets differ by
    one variable at most.

    Args:
        num_variables: Integer, the number of trainable variables.
        beta: Float in `(0, 1]`, the inclusion probability.
        size: Integer, number of subsets.
        seed: Integer.
    """
    rng = np.random.default_rng([seed, num_variables])
    members = [[] for _ in range(size)]
    probabilities = [0.0] * num_variables
    included = 0
    for position, variable in enumerate(rng.permutation(num_variables)):
        due = _floor((position + 1) * beta * size) - included
        count = min(max(due, 1), size)
        included += count
        probabilities[variable] = count / size
        # The subsets with the fewest members, ties broken at random.
        order = rng.permutation(size)
        emptiest = sorted(order, key=lambda subset: len(members[subset]))
        for subset in emptiest[:count]:
            members[subset].append(int(variable))
    return SubsetPool(
        subsets=tuple(tuple(sorted(subset)) for subset in members),
        probabilities=tuple(probabilities),
    )


def whole_pool(
    num_variables: int, beta: float, size: int = 1, seed: int | None = None
) -> SubsetPool:
    """The one subset of all variables, each with probability `beta`."""
    del size, seed
    everything = tuple(range(num_variables))
    return SubsetPool((everything,), (beta,) * num_variables)


GRANULARITIES = {
    "depth": Granularity(depth_pool, size_by_depth),
    "variable": Granularity(draw_pool, size_by_variable),
    "weight": Granularity(
        whole_pool, lambda beta, preferred: 1, by_scalar=True
    ),
}


def subset_at(execution: int, num_subsets: int, seed: int) -> int:
    """Index of the subset that is perturbed in a call of the compiled step.

    Args:
        execution: Integer, the number of calls before, over the whole training.
            A call does `steps_per_execution` steps.
        num_subsets: Integer, the size of the pool.
        seed: Integer.

    Returns:
        Integer in `[0, num_subsets)`. Each round of `num_subsets` calls has
        every subset once.
    """
    if num_subsets == 1:
        return 0
    turn, position = divmod(execution, num_subsets)
    return _permutation(num_subsets, turn, seed)[position]


@functools.lru_cache(maxsize=16)
def _permutation(size, turn, seed):
    return np.random.default_rng([seed, size, turn]).permutation(size).tolist()


def _is_whole(value):
    return abs(value - round(value)) < 1e-6


def _floor(value):
    """Floor that takes 2.9999999999 for 3."""
    return round(value) if _is_whole(value) else math.floor(value)
