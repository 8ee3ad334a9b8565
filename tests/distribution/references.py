"""What a training on several replicas must end with, by hand in NumPy."""

import numpy as np

from keras_esam import subsets
from tests import numpy_reference as reference
from tests.trainers.test_reference_step import LEARNING_RATE
from tests.trainers.test_reference_step import MOMENTUM
from tests.trainers.test_reference_step import PENALTY

NUM_STEPS, BATCH_SIZE = 10, 16
METHODS = {
    "sam": {"beta": 1, "gamma": 1},
    "esam": {},
    "esam_variable": {
        "beta": 0.5,
        "granularity": "variable",
        "rank_by": "loss",
    },
    "micro_batches": {"beta": 1, "micro_batch_size": 4},
    "global_sam": {"beta": 1, "gamma": 1, "ascent_scope": "global"},
    "global_sds": {"beta": 1, "ascent_scope": "global"},
    "one_step": {"ascent": "previous", "gamma": 1},
}
CASES = [*((name, 2) for name in METHODS), ("global_sam", 4)]


def make_data():
    rng = np.random.default_rng(3)
    num_samples = NUM_STEPS * BATCH_SIZE
    x = rng.normal(size=(num_samples, 4))
    y = rng.integers(0, 3, num_samples)
    return x, y, rng.uniform(0.2, 2.0, num_samples)


def make_step(name, number, seed=5):
    kwargs = METHODS[name]
    pool = subsets.make_pool(
        kwargs.get("granularity", "depth"),
        (0, 1, 2, 3),
        kwargs.get("beta", 0.6),
        seed,
    )
    index = subsets.subset_at(number, len(pool.subsets), seed)
    return reference.Step(
        rho=0.3,
        gamma=kwargs.get("gamma", 0.5),
        rank_by=kwargs.get("rank_by", "sharpness"),
        subset=pool.subsets[index],
        probabilities=pool.probabilities,
    )


def weights_after(name, num_replicas, params):
    """Parameters after `NUM_STEPS` steps, from the given ones."""
    kwargs = METHODS[name]
    size = kwargs.get("micro_batch_size", BATCH_SIZE // num_replicas)
    params = [p.astype("float64") for p in params]
    velocity = previous = [np.zeros_like(p) for p in params]
    x, y, weights = make_data()
    for number in range(NUM_STEPS):
        starts = range(BATCH_SIZE * number, BATCH_SIZE * (number + 1), size)
        parts = [
            tuple(values[start : start + size] for values in (x, y, weights))
            for start in starts
        ]
        step = make_step(name, number)
        if kwargs.get("ascent_scope") == "global":
            batch = slice(starts.start, starts.stop)
            step.previous = reference.gradient(
                params, x[batch], y[batch], weights[batch], PENALTY
            )
        elif kwargs.get("ascent") == "previous":
            step.previous = previous
        params, velocity, previous = reference.train_step(
            params, velocity, parts, step, LEARNING_RATE, MOMENTUM, PENALTY
        )
    return params
