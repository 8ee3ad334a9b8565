"""Trainings through `fit` against the same steps written by hand in NumPy."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_esam import ascent
from keras_esam import selection
from keras_esam import subsets
from tests import numpy_reference as reference
from tests.networks import esam

# Exact in float32, through which Keras' optimizers pass some of them.
LEARNING_RATE, MOMENTUM, PENALTY = 0.5, 0.875, 1 / 128
NUM_INPUTS, NUM_HIDDEN, NUM_CLASSES = 4, 5, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of `ESAMModel`, and of what `fit` gets."""

    arguments: dict
    seed: int = 3
    num_samples: int = 90
    batch_size: int = 9
    learning_rate: float = LEARNING_RATE
    scale: float = 1.0
    weights: str | None = "uniform"
    run_eagerly: bool = True


def make_data(case):
    """Inputs, labels and sample weights, all of them with a first axis."""
    rng = np.random.default_rng(case.seed)
    n = case.num_samples
    x = case.scale * rng.normal(size=(n, NUM_INPUTS))
    y = rng.integers(0, NUM_CLASSES, n)
    weights = {
        None: np.ones(n),
        "uniform": rng.uniform(0.2, 2.0, n),
        "some_zero": rng.integers(0, 2, n).astype("float64"),
        "zero": np.zeros(n),
    }[case.weights]
    floatx = keras.config.floatx()
    # What the model gets is what the reference gets.
    return x.astype(floatx), y, weights.astype(floatx)


def tanh(x):
    """As `keras.ops.tanh`, which computes in float32 on JAX."""
    return 2 * keras.ops.sigmoid(2 * x) - 1


def make_model(case):
    keras.utils.set_random_seed(case.seed)
    network = keras.Sequential(
        [
            keras.Input((NUM_INPUTS,)),
            keras.layers.Dense(
                NUM_HIDDEN,
                activation=tanh,
                kernel_regularizer=keras.regularizers.L2(PENALTY),
                bias_initializer="random_normal",
            ),
            keras.layers.Dense(NUM_CLASSES, bias_initializer="random_normal"),
        ]
    )
    model = esam(network, **case.arguments)
    model.compile(
        keras.optimizers.SGD(case.learning_rate, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=case.run_eagerly,
    )
    return model


def fit(model, case):
    x, y, weights = make_data(case)
    model.fit(
        x,
        y,
        sample_weight=None if case.weights is None else weights,
        batch_size=case.batch_size,
        shuffle=False,
        verbose=0,
    )


def record(patch, module, name):
    """The list of the results of a function, or of its first argument."""
    recorded = []
    function = getattr(module, name)

    def call(*args):
        result = function(*args)
        drawn = result if name == "bernoulli_masks" else args[0]
        recorded.append(
            keras.tree.map_structure(keras.ops.convert_to_numpy, drawn)
        )
        return result

    patch.setattr(module, name, call)
    return recorded


def at(value, step):
    """Value of an argument that may be a schedule."""
    if isinstance(value, (int, float)):
        return value
    result = float(value(step))
    # Of stages Keras rounds the value to float32.
    stages = getattr(value, "values", [result])
    return min(stages, key=lambda stage: abs(stage - result))


def reference_step(model, index, num_samples, velocity, masks=(), scores=()):
    """The `numpy_reference.Step` with which a model does its step `index`."""
    beta, gamma = at(model.beta, index), at(model.gamma, index)
    pool = subsets.make_pool(
        model.granularity,
        (0, 1, 2, 3),
        beta,
        model.seed,
        preferred_size=model._preferred_pool_size,
    )
    subset = subsets.subset_at(index, len(pool.subsets), model.seed)
    rho = 0.0 if index < model.start else at(model.rho, index)
    has_masks = rho and model.granularity == "weight" and beta < 1
    count = selection.num_selected(num_samples, gamma)
    has_scores = rho and model.rank_by == "random" and count < num_samples
    return reference.Step(
        rho=rho,
        gamma=gamma,
        rank_by=model.rank_by,
        ascent_fraction=model.ascent_fraction,
        adaptive=model.adaptive,
        scale=model.scale,
        subset=pool.subsets[subset],
        probabilities=(
            (beta,) * 4 if model.scale == "authors" else pool.probabilities
        ),
        ascent=velocity if model.ascent == "momentum" else None,
        masks=next(masks) if has_masks else None,
        scores=next(scores) if has_scores else np.arange(num_samples)[::-1],
    )


def parts_of(start, stop, size):
    """Slices of a batch, of which the first has what is left over."""
    stops = range(stop, start, -size)
    return [slice(max(s - size, start), s) for s in stops]


def reference_weights(model, case, params, masks=(), scores=(), num_replicas=1):
    """Parameters after the training, from the given ones."""
    velocity = [np.zeros_like(p) for p in params]
    alignment = 1.0
    data = [part.astype("float64") for part in make_data(case)]
    data[1] = data[1].astype(int)
    starts = range(0, case.num_samples, case.batch_size)
    for index, start in enumerate(starts):
        stop = min(start + case.batch_size, case.num_samples)
        step = reference_step(
            model, index, stop - start, velocity, masks, scores
        )
        step.alignment = alignment
        if model.ascent_scope == "global":
            batch = [part[start:stop] for part in data]
            step.ascent = reference.gradient(params, *batch, PENALTY)
        size = model.micro_batch_size or -(-(stop - start) // num_replicas)
        params, velocity, _ = reference.train_step(
            params,
            velocity,
            [
                tuple(part[rows] for part in data)
                for rows in parts_of(start, stop, size)
            ],
            step,
            case.learning_rate,
            MOMENTUM,
            PENALTY,
        )
        if step.cosines:
            cosines, counts = zip(*step.cosines, strict=True)
            alignment += (np.average(cosines, weights=counts) - alignment) / 20
    return params


def check(case, tolerance):
    """Trains, compares the weights, and returns the largest change of one."""
    model = make_model(case)
    start = [w.astype("float64") for w in model.get_weights()]
    masks, scores = [], []
    with pytest.MonkeyPatch.context() as patch:
        if model.granularity == "weight":
            masks = record(patch, ascent, "bernoulli_masks")
        if model.rank_by == "random":
            scores = record(patch, selection, "select")
        fit(model, case)
    expected = reference_weights(model, case, start, iter(masks), iter(scores))
    for result, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=0, atol=tolerance)
    return max(
        np.abs(a - b).max() for a, b in zip(expected, start, strict=True)
    )
