"""What is particular to PyTorch: an eager step with `torch.autograd.grad`.

The other tests run on PyTorch as well, with `KERAS_BACKEND=torch`.
"""

import keras
import numpy as np
import pytest

import keras_esam
from benchmarks import operations
from benchmarks.networks import make_network
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

if keras.backend.backend() != "torch":
    pytest.skip("for the PyTorch backend", allow_module_level=True)

import torch  # noqa: E402

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
    model = compile_model(keras_esam.ESAMModel(network))
    before = model.get_weights()
    with pytest.raises(ValueError, match="would be lost"):
        fit(model, X, Y)
    assert_identical(model.get_weights(), before)
    model.rho = 0.0
    fit(model, X, Y)


def test_weights_and_logs_keep_no_graph():
    model = compile_model(keras_esam.ESAMModel(dense_network()))
    logs = model.train_on_batch(X[:16], Y[:16], return_dict=True)
    assert np.isfinite(list(logs.values())).all()
    for variable in model.variables:
        assert variable.value.grad_fn is None
        assert variable.value.grad is None


def test_depth_subsets_save_operations():
    """Nothing is merged here: 3 units less for each of the layers left out."""
    x = np.zeros((16, 32, 32, 3), "float32")
    y = np.zeros(16, "int32")
    counts = {}
    for name, kwargs in {
        "SGD": {"rho": 0},
        "SAM": {"beta": 1, "gamma": 1},
        "depth": {"beta": 0.6, "gamma": 0.5},
        "loss": {"beta": 0.6, "gamma": 0.5, "rank_by": "loss"},
    }.items():
        network = make_network("resnet18", 4, 2)
        model = compile_model(keras_esam.ESAMModel(network, **kwargs))
        model.train_on_batch(x, y)
        counts[name], _ = operations.operations_per_step(model, x, y)
    assert counts["SGD"] == counts["SAM"] / 2
    assert counts["depth"] < 0.8 * counts["SAM"]
    assert counts["loss"] < 0.65 * counts["SAM"]


def test_one_step_per_execution():
    model = keras_esam.ESAMModel(dense_network())
    compile_model(model, steps_per_execution=2)
    with pytest.raises(ValueError, match="must be 1 with the PyTorch"):
        fit(model, X, Y)


def test_compiled_step_equals_the_eager_one():
    weights = []
    for jit_compile in False, True:
        network = dense_network(dropout=False)
        model = keras_esam.ESAMModel(network, beta=1, gamma=0.5)
        compile_model(model, jit_compile=jit_compile)
        fit(model, X[:32], Y[:32])
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
