"""A warning where weights are trained past the sharpness-aware step."""

import re

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam import analysis
from tests.methods import METHODS
from tests.networks import PAPER
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

X, Y = dense_data(32)
MESSAGE = r"`student` was called in training mode .*no sharpness-aware step"


def student(**kwargs):
    return esam(dense_network(), name="student", **kwargs)


def test_distiller_trains_without_sharpness_and_says_so():
    distiller = keras.distillation.Distiller(
        dense_network(seed=2),
        student(),
        distillation_losses=keras.distillation.LogitsDistillation(),
    )
    compile_model(distiller)
    with pytest.warns(UserWarning, match=MESSAGE) as warned:
        fit(distiller, X, Y, epochs=2)
    # PyTorch has others.
    (own,) = [w for w in warned if re.search(MESSAGE, str(w.message))]
    assert own.filename.endswith("networks.py")  # Where `fit` is called.


def test_model_around_it_trains_without_sharpness_and_says_so():
    outer = keras.Sequential([keras.Input((8,)), student()])
    with pytest.warns(UserWarning, match=MESSAGE):
        fit(compile_model(outer), X, Y)


def test_loop_of_ones_own_says_so():
    model = student()
    with pytest.warns(UserWarning, match=MESSAGE) as warned:
        model(X, training=True)
    assert [w.filename for w in warned] == [__file__]
    # Once is enough.
    model(X, training=True)
    # The network may be trained in any way.
    student().model(X, training=True)


class WithTrainStep(keras_esam.ESAMModel):
    """Trains in plain Keras' way, without `super().train_step()`."""

    def train_step(self, *args):
        return keras.Model.train_step(self, *args)


def test_train_step_without_ours_says_so():
    model = WithTrainStep(dense_network(), name="student", **PAPER)
    with pytest.warns(UserWarning, match=MESSAGE):
        fit(compile_model(model), X, Y)


def test_nothing_to_say_of_other_calls():
    frozen = student()
    frozen.trainable = False
    student(rho=0)(X, training=True)
    frozen(X, training=True)
    model = student()
    model(X)
    model(X, training=False)
    compile_model(keras.Sequential([keras.Input((8,)), model])).predict(
        X, verbose=0
    )


@pytest.mark.parametrize(
    "method", ["esam_depth", "esam_micro_batches", "one_step"]
)
def test_nothing_to_say_of_its_own_training(method):
    """Warnings are errors here."""
    model = compile_model(student(**METHODS[method]))
    fit(model, X, Y, validation_data=(X, Y))
    model.train_on_batch(X, Y)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    assert not model._has_warned


def test_nothing_to_say_of_analysis():
    model = compile_model(student())
    logger = keras_esam.callbacks.SharpnessLogger((X, Y))
    fit(model, X, Y, callbacks=[logger])
    analysis.sharpness(model, (X, Y))
    analysis.batch_halves(model, (X, Y))
    assert not model._has_warned


def test_model_within_the_network_of_another_is_trained_by_that_one():
    network = keras.Sequential([keras.Input((8,)), student()])
    history = fit(compile_model(esam(network)), X, Y).history
    assert np.isfinite(history["sharpness"])
