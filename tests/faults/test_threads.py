"""Several models in one process, in turn and in threads."""

import concurrent.futures
import functools
import threading

import keras
import pytest

from tests.backends import BACKEND
from tests.backends import tensorflow_only
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

# Seconds until it is a failure, on a busy machine too.
TIMEOUT = 120
METHODS = {}, {"granularity": "weight", "ascent": "momentum", "gamma": 1}


def make_two():
    return [
        compile_model(esam(dense_network(seed=i), seed=i, **m))
        for i, m in enumerate(METHODS, start=1)
    ]


def state(model):
    return all_values(model) + [v.numpy() for v in model.optimizer.variables]


@functools.cache
def alone():
    """What each of two models is after it has trained with no other there."""
    x, y = dense_data(40)
    models = make_two()
    for model in models:
        fit(model, x, y, epochs=2)
    return [state(model) for model in models]


def in_turn(models, x, y):
    for _ in range(2):
        for model in models:
            fit(model, x, y)


def in_threads(models, x, y):
    ready = threading.Barrier(len(models))

    def train(model):
        ready.wait(TIMEOUT)
        fit(model, x, y, epochs=2)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(train, models))


@pytest.mark.skipif(BACKEND == "torch", reason="it has one random generator")
@pytest.mark.parametrize("train", [in_turn, in_threads])
def test_two_models_train_as_each_alone(train):
    x, y = dense_data(40)
    models = make_two()
    train(models, x, y)
    for model, expected in zip(models, alone(), strict=True):
        assert_identical(state(model), expected)


class Waits(keras.layers.Layer):
    """Lets something happen in another thread whenever it is called."""

    def __init__(self, work=None):
        super().__init__()
        self.work = work
        self.calls = 0

    def call(self, inputs):
        self.calls += 1
        if self.work is not None:
            thread = threading.Thread(target=self.work)
            thread.start()
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        return inputs


def network_with(layer):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((8,)), layer, keras.layers.Dense(3, "softmax")]
    )


@tensorflow_only
@pytest.mark.parametrize(
    ("wrap", "run_eagerly"), [(True, False), (False, True)]
)
def test_compiled_step_stays_compiled_while_another_model_is_traced(
    wrap, run_eagerly
):
    x, y = dense_data(16)
    counts = Waits()
    other = network_with(counts)
    if wrap:
        other = esam(other, beta=1, gamma=1)
    compile_to_graph(other)
    other.train_on_batch(x, y)
    seen = []

    def train_other():
        before = counts.calls
        other.train_on_batch(x, y)
        seen.append(counts.calls - before)

    waits = Waits()
    model = esam(network_with(waits), beta=1, gamma=1)
    compile_to_graph(model, run_eagerly=run_eagerly)
    waits.work = train_other
    model.train_on_batch(x, y)
    assert len(seen) >= 2
    assert not any(seen)
