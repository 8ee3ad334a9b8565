"""Ten steps through `fit` against the step written by hand in NumPy."""

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam import ascent
from keras_esam import subsets
from tests import numpy_reference as reference

PiecewiseConstantDecay = keras.optimizers.schedules.PiecewiseConstantDecay
PolynomialDecay = keras.optimizers.schedules.PolynomialDecay

# Exact in float32, through which Keras' optimizers pass some of them.
LEARNING_RATE, MOMENTUM, PENALTY = 0.5, 0.875, 1 / 128
NUM_STEPS, BATCH_SIZE = 10, 9

VARIABLE = {"granularity": "variable"}
METHODS = {
    "sgd": {"rho": 0.0},
    "sam": {"beta": 1, "gamma": 1},
    "asam": {"beta": 1, "gamma": 1, "adaptive": True},
    "swp": {"gamma": 1, **VARIABLE},
    "swp_uneven_probabilities": {"gamma": 1, "beta": 0.37, **VARIABLE},
    "swp_authors": {"gamma": 1, "scale": "authors", **VARIABLE},
    "swp_adaptive": {"gamma": 1, "adaptive": True, **VARIABLE},
    "swp_weight": {"gamma": 1, "granularity": "weight"},
    "swp_weight_authors": {
        "gamma": 1,
        "granularity": "weight",
        "scale": "authors",
    },
    "sds": {"beta": 1},
    "sds_loss": {"beta": 1, "rank_by": "loss"},
    "esam": VARIABLE,
    "esam_weight": {"granularity": "weight"},
    "swp_depth": {"gamma": 1, "granularity": "depth"},
    "swp_depth_authors": {
        "gamma": 1,
        "granularity": "depth",
        "scale": "authors",
    },
    "esam_depth": {"granularity": "depth"},
    "esam_depth_small_beta": {"granularity": "depth", "beta": 0.3},
    "esam_interval": {"interval": 3, "rank_by": "loss", **VARIABLE},
    "esam_schedules": {
        "rho": PolynomialDecay(0.3, decay_steps=8, end_learning_rate=0.1),
        "beta": PiecewiseConstantDecay([2, 6], [1.0, 0.5, 0.75]),
        "gamma": PiecewiseConstantDecay([4], [1.0, 0.5]),
    },
    "one_step": {"gamma": 1, "ascent": "previous"},
    "one_step_loss": {"ascent": "previous", "rank_by": "loss"},
    "one_step_interval": {"gamma": 1, "ascent": "previous", "interval": 2},
    "sam_micro_batches": {"beta": 1, "gamma": 1, "micro_batch_size": 4},
    "esam_micro_batches": {"micro_batch_size": 6},
    "esam_loss_adaptive": {"rank_by": "loss", "adaptive": True, "gamma": 0.3},
}


def make_data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(NUM_STEPS * BATCH_SIZE, 4))
    y = rng.integers(0, 3, NUM_STEPS * BATCH_SIZE)
    weights = rng.uniform(0.2, 2.0, NUM_STEPS * BATCH_SIZE)
    return x, y, weights


def tanh(x):
    """As `keras.ops.tanh`, which computes in float32 on JAX."""
    return 2 * keras.ops.sigmoid(2 * x) - 1


def make_model(**kwargs):
    network = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(
                5,
                activation=tanh,
                kernel_regularizer=keras.regularizers.L2(PENALTY),
                bias_initializer="random_normal",
            ),
            keras.layers.Dense(3, bias_initializer="random_normal"),
        ]
    )
    model = keras_esam.ESAMModel(network, **{"rho": 0.3, "seed": 5, **kwargs})
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=model.granularity == "weight",
    )
    return model


def record_masks(monkeypatch):
    drawn = []
    draw = ascent.bernoulli_masks

    def recorded(*args):
        masks = draw(*args)
        drawn.append([np.asarray(mask) for mask in masks])
        return masks

    monkeypatch.setattr(ascent, "bernoulli_masks", recorded)
    return drawn


def at(value, step):
    """Value of an argument that may be a schedule."""
    return value if isinstance(value, (int, float)) else float(value(step))


def reference_step(model, index, masks, previous):
    beta = at(model.beta, index)
    pool = subsets.make_pool(model.granularity, (0, 1, 2, 3), beta, model.seed)
    number, is_base = divmod(index, model.interval)
    subset = subsets.subset_at(number, len(pool.subsets), model.seed)
    return reference.Step(
        rho=0.0 if is_base else at(model.rho, index),
        gamma=at(model.gamma, index),
        rank_by=model.rank_by,
        adaptive=model.adaptive,
        scale=model.scale,
        subset=pool.subsets[subset],
        probabilities=(
            (beta,) * 4 if model.scale == "authors" else pool.probabilities
        ),
        masks=masks[index] if masks else None,
        previous=previous if model.ascent == "previous" else None,
    )


def reference_weights(model, params, masks):
    velocity = [np.zeros_like(p) for p in params]
    previous = velocity
    x, y, weights = make_data()
    for index in range(NUM_STEPS):
        step = reference_step(model, index, masks, previous)
        # The first micro-batch has what is left over.
        size = model.micro_batch_size or BATCH_SIZE
        stops = range(BATCH_SIZE * (index + 1), BATCH_SIZE * index, -size)
        slices = [
            slice(max(stop - size, BATCH_SIZE * index), stop) for stop in stops
        ]
        params, velocity, previous = reference.train_step(
            params,
            velocity,
            [(x[part], y[part], weights[part]) for part in slices],
            step,
            LEARNING_RATE,
            MOMENTUM,
            PENALTY,
        )
    return params


def check_against_reference(kwargs, monkeypatch, tolerance):
    masks = record_masks(monkeypatch)
    model = make_model(**kwargs)
    start = [w.astype("float64") for w in model.get_weights()]
    x, y, weights = make_data()
    model.fit(
        x.astype(keras.config.floatx()),
        y,
        sample_weight=weights.astype(keras.config.floatx()),
        batch_size=BATCH_SIZE,
        shuffle=False,
        verbose=0,
    )
    expected = reference_weights(model, start, masks)
    for result, value, before in zip(
        model.get_weights(), expected, start, strict=True
    ):
        np.testing.assert_allclose(result, value, rtol=0, atol=tolerance)
        assert np.abs(result - before).max() > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_ten_steps_equal_the_reference(method, monkeypatch):
    check_against_reference(METHODS[method], monkeypatch, 1e-5)


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="Keras computes parts of it in float32 on PyTorch",
)
@pytest.mark.parametrize("method", METHODS)
def test_ten_steps_equal_the_reference_in_float64(method, monkeypatch, float64):
    check_against_reference(METHODS[method], monkeypatch, 1e-10)
