"""Bad arguments and bad use: what was expected, and what was received."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

X, Y = dense_data(16)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": -0.1}, ValueError, r"`rho` must .* Received: rho=-0.1"),
        ({"rho": float("nan")}, ValueError, r"Received: rho=nan"),
        ({"rho": float("inf")}, ValueError, r"Received: rho=inf"),
        ({"rho": "0.1"}, TypeError, r"Received: rho='0.1' of type"),
        ({"rho": True}, TypeError, r"Received: rho=True"),
        ({"beta": 0}, ValueError, r"range \(0, 1\]. Received: beta=0"),
        ({"beta": 1.1}, ValueError, r"\(0, 1\]. Received: beta=1.1"),
        ({"beta": None}, TypeError, r"Received: beta=None"),
        ({"gamma": -1}, ValueError, r"\(0, 1\]. Received: gamma=-1"),
        ({"gamma": 2}, ValueError, r"\(0, 1\]. Received: gamma=2"),
        ({"gamma": [0.5]}, TypeError, r"Received: gamma=\[0.5\]"),
        (
            {"granularity": "layer"},
            ValueError,
            r"\('depth', 'variable', 'weight'\). Received: granularity='layer'",
        ),
        ({"ascent": "next"}, ValueError, r"Received: ascent='next'"),
        ({"ascent": "momentum"}, ValueError, r"runs no pass"),
        ({"ascent_scope": "all"}, ValueError, r"Received: ascent_scope='all'"),
        ({"micro_batch_size": 0}, ValueError, r"at least 1. Received: micro"),
        ({"micro_batch_size": 2.5}, TypeError, r"Received: micro_batch_size=2"),
        (
            {"micro_batch_size": 2, "ascent_scope": "global"},
            ValueError,
            r"Use one of them. Received: micro_batch_size=2",
        ),
        (
            {"micro_batch_size": 2, "ascent": "momentum", "gamma": 1},
            ValueError,
            r"none of its micro-batches.* Received: micro_batch_size=2",
        ),
        ({"rank_by": "grad"}, ValueError, r"Received: rank_by='grad'"),
        ({"rank_by": None}, ValueError, r"Received: rank_by=None"),
        ({"scale": "paper"}, ValueError, r"Received: scale='paper'"),
        ({"adaptive": "False"}, TypeError, r"Received: adaptive='False'"),
        ({"seed": -1}, ValueError, r"Received: seed=-1"),
        ({"seed": 1.5}, TypeError, r"Received: seed=1.5"),
        ({"seed": 2**31}, ValueError, r"Received: seed=2147483648"),
        ({"bogus": 1}, TypeError, r"bogus"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        esam(dense_network(), **arguments)


def test_bad_stages():
    zero = keras.optimizers.schedules.PiecewiseConstantDecay([2], [1.0, 0.0])
    with pytest.raises(ValueError, match="Received: beta=0.0"):
        esam(dense_network(), beta=zero)
    smooth = keras.optimizers.schedules.CosineDecay(0.5, 10)
    with pytest.raises(TypeError, match="PiecewiseConstantDecay.*Received: ga"):
        esam(dense_network(), gamma=smooth)

    class Other(keras.optimizers.schedules.PiecewiseConstantDecay):
        def __call__(self, step):
            return 0.25

    with pytest.raises(TypeError, match="few constant stages"):
        esam(dense_network(), gamma=Other([5], [1.0, 0.5]))


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 1])
def test_numbers_of_any_kind_are_accepted(number):
    model = esam(dense_network(), rho=number, beta=number, gamma=number)
    assert type(model.rho) is type(model.beta) is type(model.gamma) is float


@pytest.mark.parametrize(
    "model", [None, "resnet", keras.Sequential, keras.layers.Dense(3)], ids=str
)
def test_model_that_is_no_keras_model(model):
    with pytest.raises(TypeError, match=r"`keras.Model`. Received: model="):
        esam(model)


def test_wrapped_model_is_not_wrapped_again():
    model = esam(dense_network())
    with pytest.raises(ValueError, match="not an `ESAMModel`"):
        esam(model)


@pytest.mark.parametrize(
    "method",
    [
        *("train_step", "test_step", "predict_step", "compute_loss"),
        *("compute_metrics", "reset_metrics", "make_train_function"),
        *("compile", "fit", "evaluate", "predict", "train_on_batch"),
    ],
)
def test_network_with_a_training_method_of_its_own(method):
    network_class = type(
        "Network", (keras.Sequential,), {method: lambda self, *args: None}
    )
    with pytest.raises(ValueError, match=f"must not override \\['{method}'"):
        esam(network_class([keras.layers.Dense(3)]))


@pytest.mark.parametrize(
    "method", ["fit", "evaluate", "train_on_batch", "test_on_batch"]
)
def test_only_the_network_is_compiled(method):
    network = compile_model(dense_network())
    model = esam(network)
    with pytest.raises(ValueError, match="does not take over the optimizer"):
        getattr(model, method)(X, Y)
    assert len(model.predict(X, verbose=0)) == len(X)


def test_attributes_are_checked_when_they_are_set():
    model = compile_model(esam(dense_network()))
    for name, value in [("rho", -1), ("gamma", 0), ("rank_by", "grad")]:
        before = getattr(model, name)
        with pytest.raises(ValueError, match=f"Received: {name}="):
            setattr(model, name, value)
        assert getattr(model, name) == before


def test_fit_before_compile():
    model = esam(dense_network())
    with pytest.raises(ValueError, match=r"call `compile\(\)` before"):
        fit(model, X, Y)


def test_compile_without_an_optimizer():
    model = esam(dense_network())
    model.compile(optimizer=None, loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="optimizer=None"):
        fit(model, X, Y)


def test_optimizer_shared_by_two_models():
    optimizer = keras.optimizers.SGD(0.1)
    first = esam(dense_network(), beta=1)
    second = esam(dense_network(), beta=1)
    fit(compile_to_graph(first, optimizer), X, Y)
    compile_to_graph(second, optimizer)
    before = second.get_weights()
    with pytest.raises(ValueError, match="nknown variable|for the variables"):
        fit(second, X, Y)
    for a, b in zip(before, second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_optimizer_goes_on_with_the_same_network():
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    network = compile_model(dense_network(), optimizer)
    fit(network, X, Y)
    model = compile_model(esam(network), optimizer)
    fit(model, X, Y)
    assert int(optimizer.iterations) == 2


def networks_without_trainable_weights():
    frozen = dense_network(dropout=False)
    frozen.trainable = False
    yield frozen
    yield keras.Sequential([keras.Input((8,)), keras.layers.ReLU()])


def test_network_without_trainable_weights():
    for network in networks_without_trainable_weights():
        model = compile_model(esam(network))
        with pytest.raises(ValueError, match="must have trainable weights"):
            fit(model, X, Y)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_base_optimizer_goes_on_without_trainable_weights_as_keras_does():
    for network in networks_without_trainable_weights():
        histories = [
            fit(compile_model(model), X, Y, epochs=2).history
            for model in (network, keras_esam.ESAMModel(network, rho=0))
        ]
        assert histories[0] == histories[1]


def mean_loss(y_true, y_pred):
    return keras.ops.mean(
        keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
    )


def test_loss_that_reduces_by_itself():
    for rank_by in ("sharpness", "loss"):
        model = esam(dense_network(), rank_by=rank_by)
        model.compile("sgd", mean_loss)
        before = model.get_weights()
        with pytest.raises(ValueError, match=r"loss of each sample.*mean_loss"):
            fit(model, X, Y)
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num_samples", [3, 7])
def test_loss_of_each_class_is_not_that_of_each_sample(num_samples):
    """As many classes as samples, and another number of them."""
    x, y = X[:num_samples], np.eye(3, dtype="float32")[Y[:num_samples]]
    loss = keras.losses.Dice(axis=(0,))
    model = esam(dense_network())
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match="loss of each sample"):
        fit(model, x, y)
    model = esam(dense_network(), gamma=1)
    model.compile("sgd", loss)
    assert "sharpness" not in fit(model, x, y).history


def test_message_of_outputs_without_an_axis_names_their_shapes():
    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(1),
            keras.layers.Reshape(()),
        ]
    )
    model = esam(network)
    model.compile("sgd", "mse", run_eagerly=True)
    message = (
        r"shape `\(batch_size,\)` and not with `\(batch_size, 1\)`.*"
        r"predictions of shape \(16,\) and targets of shape \(16,\)"
    )
    with pytest.raises(ValueError, match=message):
        fit(model, X, Y)


@pytest.mark.parametrize("arguments", [{"gamma": 1}, {"rank_by": "random"}])
def test_loss_that_reduces_by_itself_is_enough_without_ranking(arguments):
    model = esam(dense_network(), **arguments)
    model.compile("sgd", mean_loss)
    assert "sharpness" not in fit(model, X, Y).history


def test_stateful_layers_get_no_smaller_batches():
    def network():
        return keras.Sequential(
            [
                keras.Input(batch_shape=(16, 4, 2)),
                keras.layers.LSTM(4, stateful=True),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )

    x = X.reshape(16, 4, 2)
    for arguments, received in (
        ({}, "gamma=0.5, ascent_fraction=1"),
        ({"gamma": 1, "ascent_fraction": 0.25}, "gamma=1.0, ascent_fraction=0"),
        ({"gamma": 1, "micro_batch_size": 4}, ".* micro_batch_size=4"),
    ):
        message = rf"stateful layers, \['lstm.*Use `gamma=1`, .*: {received}"
        with pytest.raises(ValueError, match=message):
            fit(compile_model(esam(network(), **arguments)), x, Y)
    cases = [{"gamma": 1}]
    if keras.backend.backend() != "torch":  # Keras itself fails there.
        cases.append({"rho": 0})
    for arguments in cases:
        model = compile_model(esam(network(), **arguments))
        assert np.isfinite(fit(model, x, Y).history["loss"])


def test_metric_with_the_name_of_our_own():
    metric = keras.metrics.SparseCategoricalAccuracy(name="sharpness")
    model = esam(dense_network())
    for name in ("metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match='a metric named "sharpness"'):
            compile_model(model, **{name: {"dense_2": [metric]}})


def test_weights_of_a_plain_network(tmp_path):
    network = dense_network()
    network.save_weights(tmp_path / "a.weights.h5")
    model = esam(dense_network(seed=2))
    with pytest.raises(ValueError, match=r"`model.model.load_weights\(\)`"):
        model.load_weights(tmp_path / "a.weights.h5")
    model.model.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(network.get_weights()[0], model.weights[0])


def test_another_backend():
    """In a process of its own, since the backend is chosen at import."""
    result = subprocess.run(
        [sys.executable, "-c", "import keras_esam"],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert 'ImportError: `keras_esam` needs the "tensorflow"' in result.stderr
    assert "Received: keras.backend.backend()='numpy'" in result.stderr


LARGE = np.arange(5000.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: esam(dense_network(), rho=list(LARGE)),
        lambda: esam(dense_network(), rank_by=LARGE),
        lambda: keras_esam.callbacks.SharpnessLogger({"x": list(LARGE)}),
        lambda: keras_esam.analysis.sharpness(list(LARGE), (X, Y)),
    ],
)
def test_errors_do_not_show_the_whole_of_large_values(call):
    with pytest.raises((TypeError, ValueError), match="Received: ") as error:
        call()
    assert len(str(error.value)) < 600
