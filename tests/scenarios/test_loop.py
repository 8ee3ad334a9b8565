"""The options of `fit`, callbacks and single batches."""

import keras
import numpy as np
import pytest

from tests.backends import BACKEND
from tests.networks import compile_model
from tests.networks import esam
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
    "shuffled": {"shuffle": True, "class_weight": {0: 0.2, 1: 1.0, 2: 3.0}},
    "steps_per_epoch": {"steps_per_epoch": 2, "epochs": 2},
    "initial_epoch": {"initial_epoch": 2, "epochs": 3},
}


def in_executions_of_two(model):
    compile_model(
        model,
        run_eagerly=True,
        # Keras has none on PyTorch.
        steps_per_execution=1 if BACKEND == "torch" else 2,
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
    assert (rate < 0.1) == (name == "state")


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
    model = esam(small_network(), rho=0.1, seed=1)
    compile_model(model, keras.optimizers.SGD(0.0), run_eagerly=True)
    numbers = model.train_on_batch(X, Y)
    logs = model.get_metrics_result()
    assert numbers == [logs[key] for key in ("loss", "accuracy", "sharpness")]
    assert len(model.test_on_batch(X, Y)) == 2
