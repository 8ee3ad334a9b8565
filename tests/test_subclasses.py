"""Subclasses of `ESAMModel` with a training method of their own."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import PAPER
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit

layers = keras.layers
ops = keras.ops
X, Y = dense_data(32)
SDS = {**PAPER, "beta": 1, "seed": 1}


def network(seed=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )


class OwnLoss(keras_esam.ESAMModel):
    """Learns from the labels and from a teacher, and counts the batches."""

    def __init__(self, model, teacher, **kwargs):
        super().__init__(model, **kwargs)
        teacher.trainable = False
        self.teacher = teacher
        self.distance = keras.metrics.Mean(name="distance")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        losses = sample_losses(self.teacher, x, y, y_pred)
        self.distance.update_state(losses)
        return ops.mean(losses)

    def get_config(self):
        teacher = keras.saving.serialize_keras_object(self.teacher)
        return {**super().get_config(), "teacher": teacher}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        teacher = keras.saving.deserialize_keras_object(
            config["teacher"], custom_objects=custom_objects
        )
        return super().from_config(
            {**config, "teacher": teacher}, custom_objects
        )


@keras.saving.register_keras_serializable(package="tests")
class Distilled(OwnLoss):
    def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
        return sample_losses(self.teacher, x, y, y_pred)


def sample_losses(teacher, x, y, y_pred):
    targets = ops.softmax(teacher(x, training=False))
    return keras.losses.sparse_categorical_crossentropy(
        y, y_pred, from_logits=True
    ) + keras.losses.categorical_crossentropy(targets, y_pred, from_logits=True)


def compiled(model, **kwargs):
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True, **kwargs)
    return model


def mean_loss(model):
    """Computed by hand, in inference mode."""
    logits = model.predict(X, verbose=0)
    losses = sample_losses(
        model.teacher,
        ops.convert_to_tensor(X),
        ops.convert_to_tensor(Y),
        logits,
    )
    return float(ops.mean(losses))


@pytest.mark.parametrize(
    ("model_class", "arguments"),
    [
        (Distilled, {}),
        (Distilled, {"micro_batch_size": 8}),
        (OwnLoss, {"rank_by": "random"}),
        (OwnLoss, {"rho": 0}),
    ],
    ids=str,
)
def test_loss_of_the_subclass_is_what_is_trained_and_logged(
    model_class, arguments
):
    model = compiled(
        model_class(network(), network(2), beta=1, seed=1, **arguments)
    )
    before = model.teacher.get_weights()
    history = model.fit(X, Y, batch_size=32, epochs=8, verbose=0).history
    # The metric is updated in the clean pass alone, once a step.
    np.testing.assert_allclose(history["distance"], history["loss"], rtol=1e-5)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    results = model.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], mean_loss(model), rtol=1e-5)
    for a, b in zip(before, model.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_first_loss_is_that_of_the_override():
    """In training mode, with the statistics of the batch."""
    model = compiled(Distilled(network(), network(2), **SDS))
    x, y = ops.convert_to_tensor(X), ops.convert_to_tensor(Y)
    logits = model.model(x, training=True)
    expected = ops.mean(sample_losses(model.teacher, x, y, logits))
    expected = ops.convert_to_numpy(expected)
    logs = model.train_on_batch(X, Y, return_dict=True)
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert np.isfinite(logs["sharpness"])


def test_loss_without_sample_losses_says_what_to_override():
    model = compiled(OwnLoss(network(), network(2), **SDS))
    with pytest.raises(
        ValueError, match=r"override `compute_sample_losses\(\)"
    ):
        model.fit(X, Y, verbose=0)


def test_message_for_a_network_names_what_to_override():
    class Network(keras.Sequential):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    with pytest.raises(ValueError, match=r"along with `compute_sample_losses"):
        esam(Network([layers.Dense(3)]))


def test_saved_and_loaded_subclass_goes_on(tmp_path):
    model = compiled(Distilled(network(), network(2), **SDS))
    model.fit(X, Y, batch_size=16, verbose=0, shuffle=False)
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert type(loaded) is Distilled
    compiled_again = [
        m.fit(X, Y, batch_size=16, verbose=0, shuffle=False).history["loss"]
        for m in (model, loaded)
    ]
    np.testing.assert_allclose(*compiled_again, rtol=1e-6)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


class OwnSteps(keras_esam.ESAMModel):
    """All other training methods."""

    def train_step(self, *args):
        result = super().train_step(*args)
        logs = result[0] if isinstance(result, tuple) else result
        logs["twice"] = 2 * logs["loss"]
        return result

    def test_step(self, *args):
        result = super().test_step(*args)
        logs = result[0] if isinstance(result, tuple) else result
        logs["thrice"] = 3 * logs["loss"]
        return result

    def predict_step(self, *args):
        result = super().predict_step(*args)
        if keras.backend.backend() == "jax":
            outputs, state = result
            return ops.softmax(outputs), state
        return ops.softmax(result)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**logs, "largest": ops.max(y_pred)}


@pytest.mark.parametrize("arguments", [{}, {"rho": 0}], ids=str)
def test_steps_and_metrics_of_the_subclass_are_used(arguments):
    model, reference = (
        compiled(
            model_class(network(), **SDS, **arguments),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        for model_class in (OwnSteps, keras_esam.ESAMModel)
    )
    logs = model.train_on_batch(X, Y, return_dict=True)
    expected = reference.train_on_batch(X, Y, return_dict=True)
    assert set(logs) == {*expected, "twice", "largest"}
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logs["twice"], 2 * logs["loss"], rtol=1e-6)
    logits = reference.predict(X, verbose=0)
    np.testing.assert_allclose(
        model.predict(X, verbose=0), ops.softmax(logits), atol=1e-5
    )
    results = model.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        results["thrice"], 3 * results["loss"], rtol=1e-5
    )
    np.testing.assert_allclose(results["largest"], logits.max(), rtol=1e-4)
    expected = reference.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(results["loss"], expected["loss"], rtol=1e-5)
    history = fit(model, X, Y, batch_size=32).history
    np.testing.assert_allclose(history["twice"], 2 * np.array(history["loss"]))
