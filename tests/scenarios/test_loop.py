"""The options of `fit` and `compile`, callbacks, single batches and errors."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.networks import compile_model
from tests.scenarios import X
from tests.scenarios import Y
from tests.scenarios import compare
from tests.scenarios import fit_and_record
from tests.scenarios import small_network

callbacks = keras.callbacks
layers = keras.layers

WEIGHT = np.linspace(0.1, 2, len(X)).astype("float32")
HELD_OUT = (X[:20], Y[:20])

FIT_OPTIONS = {
    "split": {"validation_split": 0.25, "sample_weight": WEIGHT},
    "validation_arrays": {
        "validation_data": (*HELD_OUT, WEIGHT[:20]),
        "validation_batch_size": 7,
        "validation_steps": 2,
    },
    "every_second_epoch": {
        "validation_data": HELD_OUT,
        "validation_freq": 2,
        "epochs": 3,
    },
    "some_epochs": {
        "validation_data": HELD_OUT,
        "validation_freq": [1, 3],
        "epochs": 3,
    },
    "shuffled": {"shuffle": True, "class_weight": {0: 0.2, 1: 1.0, 2: 3.0}},
    "steps_per_epoch": {"steps_per_epoch": 2, "epochs": 2},
    "initial_epoch": {"initial_epoch": 2, "epochs": 3},
    "no_epoch": {"epochs": 0},
}


def in_executions_of_two(model):
    compile_model(
        model,
        run_eagerly=True,
        steps_per_execution=2,
        weighted_metrics=["accuracy"],
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("name", FIT_OPTIONS)
def test_options_of_fit(name):
    """In executions of two steps, the last one of a smaller batch alone."""
    history, epochs, events = compare(
        lambda model: fit_and_record(model, **FIT_OPTIONS[name]),
        compile_with=in_executions_of_two,
    )
    assert "val_sharpness" not in history
    logged = [logs for hook, _, logs in events if hook == "on_epoch_end"]
    assert all("sharpness" in logs for logs in logged)
    assert len(logged) == len(epochs)
    for hook, _, logs in events:
        if hook.startswith("on_test"):
            assert "sharpness" not in logs


class SetsStateBetweenBatches(callbacks.Callback):
    """Sets a weight and the learning rate, and reads what the step left."""

    def on_train_batch_end(self, batch, logs=None):
        network = getattr(self.model, "model", self.model)
        bias = network.layers[0].bias
        bias.assign(bias * 0.5 + 0.25)
        self.model.optimizer.learning_rate = 0.1 / (batch + 2)


class StopsAt(callbacks.Callback):
    """Stops `fit` in its second epoch, `evaluate` and `predict` soon too."""

    def on_train_batch_end(self, batch, logs=None):
        is_second = int(self.model.optimizer.iterations) == 5
        self.model.stop_training = is_second

    def on_test_batch_end(self, batch, logs=None):
        self.model.stop_evaluating = True

    def on_predict_batch_end(self, batch, logs=None):
        self.model.stop_predicting = True


CALLBACKS = {
    "early_stopping": lambda: callbacks.EarlyStopping(
        "val_loss", min_delta=10, patience=1, restore_best_weights=True
    ),
    "plateau": lambda: callbacks.ReduceLROnPlateau(
        "val_loss", min_delta=10, patience=1
    ),
    "schedule": lambda: callbacks.LearningRateScheduler(
        lambda epoch, rate: rate / (epoch + 1)
    ),
    "state": SetsStateBetweenBatches,
    "stop": StopsAt,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_change_the_training(name):
    def scenario(model):
        callback = CALLBACKS[name]()
        result = fit_and_record(
            model, callbacks=[callback], validation_data=HELD_OUT, epochs=3
        )
        options = {"batch_size": 20, "verbose": 0, "callbacks": [callback]}
        predictions = model.predict(X, **options)
        score = model.evaluate(X, Y, **options)
        return result, float(model.optimizer.learning_rate), predictions, score

    (_, epochs, _), rate, predictions, _ = compare(scenario)
    assert len(epochs) == (3 if name not in ("stop", "early_stopping") else 2)
    assert len(predictions) == (20 if name == "stop" else len(X))
    assert (rate < 0.1) == (name in ("plateau", "schedule", "state"))


@pytest.mark.parametrize("options", [{}, {"rank_by": "loss"}])
def test_single_batches(options):
    """Metrics go on until they are reset, as those of Keras do."""

    def scenario(model):
        results = [
            model.train_on_batch(X[:16], Y[:16], return_dict=True),
            model.train_on_batch(
                X[16:], Y[16:], sample_weight=WEIGHT[16:], return_dict=True
            ),
        ]
        model.reset_metrics()
        return (
            results,
            model.train_on_batch(
                X, Y, class_weight={0: 2.0, 1: 1.0, 2: 0.0}, return_dict=True
            ),
            model.test_on_batch(X[:16], Y[:16], sample_weight=WEIGHT[:16]),
            model.test_on_batch(X[16:], Y[16:], return_dict=True),
            model.predict_on_batch(X[:3]),
        )

    results, *_ = compare(scenario, **options)
    assert ("sharpness" in results[0]) == (not options)


def test_sharpness_is_the_last_number_of_a_batch():
    model = keras_esam.ESAMModel(small_network(), rho=0.1, seed=1)
    compile_model(model, keras.optimizers.SGD(0.0), run_eagerly=True)
    numbers = model.train_on_batch(X, Y)
    logs = model.get_metrics_result()
    assert numbers == [logs[key] for key in ("loss", "accuracy", "sharpness")]
    assert len(model.test_on_batch(X, Y)) == 2


class Confidence(keras.metrics.Metric):
    """Mean of the largest probability."""

    def __init__(self, name="confidence"):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        largest = keras.ops.max(y_pred, axis=-1)
        self.total.assign_add(keras.ops.sum(largest))
        self.count.assign_add(float(largest.shape[0]))

    def result(self):
        return self.total / (self.count + 1e-7)


def error_rate(y_true, y_pred):
    label = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
    largest = keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32")
    wrong = keras.ops.not_equal(label, largest)
    return keras.ops.cast(wrong, "float32")


def test_compiling_again_replaces_metrics_and_optimizer():
    def scenario(model):
        results = []
        for metrics in ([Confidence()], [error_rate]):
            optimizer = keras.optimizers.Adam(0.01)
            compile_model(model, optimizer, run_eagerly=True, metrics=metrics)
            results.append(fit_and_record(model, epochs=2))
            assert int(optimizer.iterations) == 6
        return results

    first, second = compare(scenario)
    assert list(first[0]) == ["confidence", "loss", "sharpness"]
    assert list(second[0]) == ["error_rate", "loss", "sharpness"]


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
def test_output_without_a_target():
    def make():
        inputs = keras.Input((8,))
        constraint = keras.constraints.MaxNorm(0.3)
        hidden = layers.Dense(
            4, "relu", kernel_constraint=constraint, name="hidden"
        )(inputs)
        return keras.Model(
            inputs, {"a": layers.Dense(1)(hidden), "b": layers.Dense(2)(hidden)}
        )

    def compile_with(model):
        model.compile("sgd", loss={"a": "mse", "b": None}, run_eagerly=True)

    norms = []

    def scenario(model):
        target = {"a": X[:, :1]}
        result = fit_and_record(model, X, target)
        network = getattr(model, "model", model)
        kernel = np.asarray(network.get_layer("hidden").kernel)
        norms.append(np.linalg.norm(kernel, axis=0))
        return result

    compare(scenario, make, compile_with)
    np.testing.assert_array_less(norms, 0.3 + 1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_steps_equal_those_of_the_bare_model(jit_compile):
    """In executions of two; XLA may order sums in another way."""
    results = []
    for wrap in (False, True):
        model = small_network()
        if wrap:
            model = keras_esam.ESAMModel(model, rho=0)
        compile_model(
            model,
            run_eagerly=False,
            jit_compile=jit_compile,
            steps_per_execution=2,
        )
        results.append(fit_and_record(model))
    leaves = [keras.tree.flatten(result) for result in results]
    for a, b in zip(*leaves, strict=True):
        assert a == b if isinstance(a, str) else a == pytest.approx(b, rel=1e-5)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


ERRORS = {
    "features": lambda model: model.fit(X[:, :5], Y, verbose=0),
    "lengths": lambda model: model.fit(X, Y[:3], verbose=0),
    "outputs": lambda model: model.fit(X, np.ones((40, 2, 5)), verbose=0),
    "no_target": lambda model: model.fit(X, verbose=0),
    "split_of_a_dataset": lambda model: model.fit(
        dataset(), validation_split=0.5, verbose=0
    ),
    "target_beside_a_dataset": lambda model: model.fit(dataset(), Y),
    "no_data": lambda model: model.fit(X[:0], Y[:0], verbose=0),
    "weight_of_another_length": lambda model: model.fit(
        X, Y, sample_weight=WEIGHT[:3], verbose=0
    ),
    "both_weights": lambda model: model.fit(
        X, Y, sample_weight=WEIGHT, class_weight={0: 1.0}, verbose=0
    ),
    "unknown_argument": lambda model: model.fit(X, Y, unknown=1),
    "evaluate": lambda model: model.evaluate(X[:, :5], Y, verbose=0),
    "predict": lambda model: model.predict(X[:, :5], verbose=0),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_keras(name):
    errors = []
    for rho in (None, 0, 0.1):
        model = small_network()
        if rho is not None:
            model = keras_esam.ESAMModel(model, rho=rho, seed=1)
        compile_model(model, run_eagerly=True)
        with pytest.raises(Exception) as error:  # noqa: B017, PT011
            ERRORS[name](model)
        errors.append(error)
    assert errors[1].type is errors[0].type and errors[2].type is errors[0].type
    # Keras may say before it in which model's call, and later of which layer.
    messages = [
        re.sub(
            r"^Exception encountered .*\n\n(\x1b\[1m)?", "", str(error.value)
        )
        for error in errors
    ]
    assert messages[0][:40] == messages[1][:40] == messages[2][:40]


@pytest.mark.parametrize("method", ["evaluate", "test_on_batch"])
def test_evaluation_before_compile(method):
    messages = []
    for make in (small_network, lambda: keras_esam.ESAMModel(small_network())):
        with pytest.raises(ValueError, match="compile") as error:
            getattr(make(), method)(X, Y)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_prediction_before_compile():
    model = small_network()
    expected = model.predict(X, verbose=0)
    prediction = keras_esam.ESAMModel(model).predict(X, verbose=0)
    np.testing.assert_array_equal(prediction, expected)
