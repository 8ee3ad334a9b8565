"""What is particular to PyTorch: an eager step with `torch.autograd.grad`.

The other tests run on PyTorch as well, with `KERAS_BACKEND=torch`.
"""

import keras
import numpy as np
import pytest

import keras_esam
from benchmarks import operations
from benchmarks.networks import resnet18
from tests.analysis.test_stateless import Remat
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

if keras.backend.backend() != "torch":
    pytest.skip("for the PyTorch backend", allow_module_level=True)

import torch  # noqa: E402

from keras_esam.backends import torch_backend  # noqa: E402
from tests.networks import esam

X, Y = dense_data(64)


class TorchDense(keras.layers.Layer):
    """Wraps a `torch.nn.Linear`, whose weights no Keras scope replaces."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.linear = torch.nn.Linear(8, 3)

    def call(self, inputs):
        return torch.softmax(self.linear(inputs), dim=-1)


def test_lost_gradients_of_a_torch_module_are_an_error():
    network = keras.Sequential([keras.Input((8,)), TorchDense()])
    model = compile_model(esam(network))
    before = model.get_weights()
    with pytest.raises(ValueError, match="would be lost"):
        fit(model, X, Y)
    assert_identical(model.get_weights(), before)
    model.rho = 0.0
    fit(model, X, Y)


def test_weights_in_remat_are_an_error():
    stack = [keras.Input((8,)), keras.layers.Dense(8), Remat()]
    network = keras.Sequential(stack)
    model = esam(network, beta=1)
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match="is read when gradients .*remat"):
        model.fit(X, X[:, :3], verbose=0)
    assert_identical(model.get_weights(), before)
    with pytest.raises(ValueError, match="is read when gradients .*remat"):
        keras_esam.analysis.sharpness(model, (X, X[:, :3]))
    model.rho = 0.0
    model.fit(X, X[:, :3], verbose=0)


def test_weights_and_logs_keep_no_graph():
    model = compile_model(esam(dense_network()))
    logs = model.train_on_batch(X[:16], Y[:16], return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    for variable in model.variables:
        assert variable.value.grad_fn is None
        assert variable.value.grad is None


def test_passes_have_the_same_dropout_masks_without_a_seed():
    """At `rho` of almost nothing the losses do not rise."""
    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = esam(network, rho=1e-6, beta=1, gamma=1)
    history = fit(compile_model(model), X, Y).history
    assert abs(history["sharpness"][0]) < 1e-4


def test_steps_have_different_dropout_masks_without_a_seed():
    """At a learning rate of 0 the loss of a batch changes with the masks."""
    stack = [keras.Input((8,)), keras.layers.Dropout(0.5)]
    stack += [keras.layers.Dense(3, activation="softmax")]
    model = esam(keras.Sequential(stack), beta=1, gamma=1)
    compile_model(model, keras.optimizers.SGD(0.0))
    losses = []
    for _ in range(3):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(X[:16], Y[:16])[0]))
    assert len(set(losses)) == 3


def test_depth_subsets_save_operations():
    """Nothing is merged here: 3 units less for each of the layers left out."""
    x = np.zeros((4, 32, 32, 3), "float32")
    y = np.zeros(4, "int32")
    counts = {}
    for name, kwargs in {
        "SGD": {"rho": 0},
        "SAM": {"beta": 1, "gamma": 1},
        "depth": {"beta": 0.6, "gamma": 0.5},
        "loss": {"beta": 0.6, "gamma": 0.5, "rank_by": "loss"},
    }.items():
        network = resnet18(4, 2)
        model = compile_model(esam(network, **kwargs))
        counts[name], _ = operations.operations_per_step(model, x, y)
    assert counts["SGD"] == counts["SAM"] / 2
    assert counts["depth"] < 0.8 * counts["SAM"]
    assert counts["loss"] < 0.65 * counts["SAM"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps_per_execution": 2}, "must be 1 with the PyTorch"),
        ({"jit_compile": True}, "must be `False` with the PyTorch"),
    ],
)
def test_what_is_not_there(options, message):
    model = esam(dense_network())
    compile_model(model, **{"run_eagerly": False, **options})
    with pytest.raises(ValueError, match=message):
        fit(model, X, Y)


def residual_network():
    """Two blocks, with random layers that draw from PyTorch's generators."""
    keras.utils.set_random_seed(1)
    inputs = x = keras.Input((8,))
    for _ in range(2):
        y = keras.layers.Dense(8, activation="relu")(x)
        y = keras.layers.BatchNormalization()(y)
        x = keras.layers.add([x, keras.layers.Dropout(0.5)(y)])
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))


def trained(network, share, monkeypatch):
    """Number of calls of the first layer in a step, and what it trains."""
    if not share:
        monkeypatch.setattr(torch_backend, "shared_prefix", lambda *args: None)
    model = compile_model(esam(network, seed=1))
    calls = []
    first = network.layers[1]
    first.register_forward_hook(lambda *args: calls.append(len(calls)))
    numbers = []
    for start in range(0, 64, 8):
        subset, before = model.upcoming_step.subset, len(calls)
        model.train_on_batch(X[start : start + 8], Y[start : start + 8])
        numbers.append((subset, len(calls) - before))
    monkeypatch.undo()
    return numbers[1:], all_values(model)


def test_layers_below_the_perturbed_ones_run_once(monkeypatch):
    """In the clean and the ranking pass together, as if they ran twice."""
    shared, weights = trained(residual_network(), True, monkeypatch)
    apart, expected = trained(residual_network(), False, monkeypatch)
    assert_identical(weights, expected)
    assert {count for _, count in apart} == {3}
    # Not if a variable of the first block is perturbed.
    assert all(count == (3 if 3 in subset else 2) for subset, count in shared)
    assert {count for _, count in shared} == {2, 3}


def test_networks_without_a_tensor_to_split_at_train_too(monkeypatch):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = residual_network()

        def call(self, inputs):
            return self.inner(inputs)

    networks = [Subclassed()]
    inputs = keras.Input((8,))
    wide = keras.layers.Dense(3)(inputs)
    for _ in range(4):
        wide = keras.layers.add([keras.layers.Dense(3)(inputs), wide])
    wide = keras.layers.Softmax()(wide)
    sequence = keras.layers.Reshape((2, 4))(inputs)
    states = keras.layers.LSTM(6, return_state=True)(sequence)
    recurrent = keras.layers.Dense(8)(states[0])
    recurrent = keras.layers.Dense(3, "softmax")(recurrent)
    for outputs in (wide, recurrent):
        networks.append(keras.Model(inputs, outputs))
    for network in networks:
        fit(compile_model(esam(network)), X, Y)


def test_network_with_a_dict_as_its_output_trains_too():
    inputs = keras.Input((8,))
    x = keras.layers.Dense(8)(keras.layers.Dense(8)(inputs))
    outputs = {"out": keras.layers.Dense(3, "softmax", name="out")(x)}
    model = esam(keras.Model(inputs, outputs), beta=0.4)
    model.compile("sgd", {"out": "sparse_categorical_crossentropy"})
    history = model.fit(X, {"out": Y}, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_splitting_a_network_leaves_few_traces():
    """Keras adds a call to the layers for each model of a part of them."""
    network = residual_network()
    model = compile_model(esam(network, seed=1))
    fit(model, X, Y, epochs=2)
    calls = [len(layer._inbound_nodes) for layer in network.layers]
    for rho in (0.1, 0.2, 0.3):
        model.rho = rho
        fit(model, X, Y, epochs=2)
    assert [len(layer._inbound_nodes) for layer in network.layers] == calls
