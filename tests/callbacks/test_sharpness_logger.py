"""Training with it and without it, bit for bit."""

import csv
import dataclasses
import math

import keras
import numpy as np
import pytest

from keras_esam import analysis
from keras_esam.callbacks import SharpnessLogger
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

X, Y = dense_data(32)
PROBE = dense_data(24, seed=7)
KEYS = [
    "probe_loss",
    "probe_loss_plus",
    "probe_loss_minus",
    "probe_perturbed_loss",
    "probe_perturbed_loss_plus",
    "probe_perturbed_loss_minus",
    "probe_cosine_plus",
    "probe_cosine_minus",
]


# On TensorFlow XLA takes longer to compile than all the rest, and to compile
# takes longer than to train.
JIT = keras.backend.backend() == "jax"


def bare_model():
    return compile_to_graph(dense_network(), jit_compile=JIT)


def esam_model():
    model = esam(dense_network(), beta=1, seed=1)
    return compile_model(model, run_eagerly=not JIT)


def final_states(model):
    """Weights, statistics, seeds, metrics and the optimizer's variables."""
    variables = model.variables + model.metrics_variables
    return [
        keras.ops.convert_to_numpy(v)
        for v in variables + model.optimizer.variables
    ]


@pytest.mark.parametrize("make", [bare_model, esam_model])
def test_training_does_not_change(make):
    def train(callbacks):
        model = make()
        # Without a seed: from Keras' global one, or on PyTorch from PyTorch's.
        keras.utils.set_random_seed(3)
        logs = {}
        for _ in range(2):
            history = fit(
                model,
                X,
                Y,
                shuffle=True,
                callbacks=callbacks,
                validation_data=(X, Y),
            ).history
            for name, values in history.items():
                logs.setdefault(name, []).extend(values)
        return final_states(model), logs

    states, logs = train([SharpnessLogger(PROBE)])
    plain_states, plain_logs = train([])
    assert_identical(states, plain_states)
    assert [key for key in logs if key not in plain_logs and key in KEYS]
    assert {key: logs[key] for key in plain_logs} == plain_logs


def test_logs_the_halves_of_the_probe_after_the_epoch():
    model = esam_model()
    logger = SharpnessLogger(PROBE, rho=0.2, gamma=0.3, adaptive=True)
    history = fit(model, X, Y, epochs=2, callbacks=[logger]).history
    halves = analysis.batch_halves(model, PROBE, 0.2, 0.3, adaptive=True)
    last = {key: history[key][-1] for key in KEYS}
    expected = {
        f"probe_{name}": value
        for name, value in dataclasses.asdict(halves).items()
    }
    assert last == pytest.approx(expected, rel=1e-6)
    assert history["probe_loss"][0] != history["probe_loss"][1]
    # B+ rises more than the batch, and that more than B-.
    plus, whole, minus = (
        np.subtract(
            history[f"probe_perturbed_loss{part}"], history[f"probe_loss{part}"]
        )
        for part in ("_plus", "", "_minus")
    )
    assert (plus > whole).all() and (whole > minus).all()


def test_between_the_epochs_that_count_it_is_not_a_number(tmp_path):
    """Which keeps the columns of a log file, and the lists of a history."""
    path = tmp_path / "log.csv"
    callbacks = [
        SharpnessLogger(PROBE, frequency=2),
        keras.callbacks.CSVLogger(path),
    ]
    history = fit(bare_model(), X, Y, epochs=3, callbacks=callbacks).history
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for key in KEYS:
        assert np.isnan(history[key]).tolist() == [1, 0, 1]
        assert [math.isnan(float(r[key])) for r in rows] == [1, 0, 1]


def test_a_model_that_was_compiled_again():
    model = bare_model()
    logger = SharpnessLogger(PROBE)
    fit(model, X, Y, callbacks=[logger])
    model.compile(
        "sgd", lambda y, y_pred: 1 + 0 * y_pred[:, 0], jit_compile=JIT
    )
    history = fit(model, X, Y, callbacks=[logger]).history
    assert history["probe_loss"] == [1.0]


class Freeze(keras.callbacks.Callback):
    """Freezes a layer after the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.layers[-1].trainable = False


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="not there, as in Keras"
)
def test_layers_that_are_frozen_amid_the_training():
    model = bare_model()
    callbacks = [Freeze(), SharpnessLogger(PROBE)]
    history = fit(model, X, Y, epochs=2, callbacks=callbacks).history
    halves = analysis.batch_halves(model, PROBE)
    assert history["probe_cosine_plus"][-1] == pytest.approx(halves.cosine_plus)


def test_every_key_is_explained():
    for key in KEYS:
        assert f"`{key}`" in SharpnessLogger.__doc__


STAGES = keras.optimizers.schedules.PiecewiseConstantDecay([9], [0.5, 1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": -1}, ValueError, "positive.* Received: rho=-1"),
        ({"gamma": 2.0}, ValueError, "Received: gamma=2.0"),
        ({"gamma": 1.0}, ValueError, r"all are in B\+. Received: gamma=1.0"),
        ({"gamma": STAGES}, TypeError, "must be a number. Received: gamma=<"),
        ({"frequency": 0}, ValueError, "at least 1. Received: frequency=0"),
        ({"frequency": 1.5}, TypeError, "Received: frequency=1.5"),
        ({"adaptive": 0}, TypeError, "Received: adaptive=0"),
        ({"batch": X}, TypeError, "must be a tuple of arrays"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        SharpnessLogger(**{"batch": PROBE, **arguments})
