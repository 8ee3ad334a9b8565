"""Small networks, data and comparisons that many tests share."""

import dataclasses

import keras
import numpy as np

import keras_esam

layers = keras.layers

NUM_CLASSES = 3
# The paper's method, but by depth.
PAPER = {"beta": 0.6, "gamma": 0.5, "ascent_fraction": 1}
# On PyTorch Keras takes the logarithm of the softmax of whatever dtype, and not
# of the logits: in float16 its gradient overflows.
SOFTMAX_DTYPE = "float32" if keras.backend.backend() == "torch" else None


def dense_data(num_samples=48, seed=0):
    """Inputs, shape `(num_samples, 8)`, and integer labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_samples, 8)).astype("float32")
    return x, rng.integers(0, NUM_CLASSES, num_samples)


def dense_network(batch_norm=True, dropout=True, seed=1):
    """Dense network with BatchNormalization and dropout, always the same."""
    keras.utils.set_random_seed(seed)
    stack = [
        keras.Input((8,)),
        layers.Dense(16, kernel_regularizer=keras.regularizers.L2(1e-3)),
        layers.BatchNormalization() if batch_norm else None,
        layers.ReLU(),
        # With a seed, or it is not reproducible on PyTorch.
        layers.Dropout(0.3, seed=seed) if dropout else None,
        layers.Dense(NUM_CLASSES, activation="softmax", dtype=SOFTMAX_DTYPE),
    ]
    return keras.Sequential([layer for layer in stack if layer is not None])


class SubclassedNetwork(keras.Model):
    """Dense network that is not built until it sees data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, activation="relu")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.3, seed=1)
        self.out = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, inputs, training=False):
        x = self.norm(self.hidden(inputs), training=training)
        return self.out(self.dropout(x, training=training))


def esam(network, **kwargs):
    """`ESAMModel` with the paper's method where the arguments say no other."""
    return keras_esam.ESAMModel(network, **{**PAPER, **kwargs})


def compile_model(model, optimizer=None, **kwargs):
    """Compiles a model for classification, with a step that runs eagerly.

    To compile the step takes many times as long as these trainings. Where the
    compiled step is what is tested, use `compile_to_graph()`.
    """
    model.compile(
        optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        **{"metrics": ["accuracy"], "run_eagerly": True, **kwargs},
    )
    return model


def compile_to_graph(model, optimizer=None, **kwargs):
    """As `compile_model()`, with a compiled step."""
    return compile_model(model, optimizer, **{"run_eagerly": False, **kwargs})


def fit(model, x, y, **kwargs):
    return model.fit(
        x, y, **{"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    )


def all_values(model):
    """Values of all variables, random states and moving statistics too."""
    return [v.numpy() for v in model.variables]


def assert_identical(first, second):
    """Asserts that two lists of arrays are equal bit for bit."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_different(first, second):
    """Asserts that every array differs between the two lists."""
    for a, b in zip(first, second, strict=True):
        assert not np.array_equal(a, b)


def plan_with(model, index):
    """Plan of the model's upcoming step, with the subset of an index."""
    plan = model.upcoming_step
    if plan.is_base_step:
        return plan
    pool = model.subset_pool
    subset = pool.subsets[index]
    probabilities = tuple(pool.probabilities[i] for i in subset)
    return dataclasses.replace(plan, subset=subset, probabilities=probabilities)
