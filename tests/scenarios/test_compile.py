"""Metrics, missing losses, constraints and compiled steps."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.backends import compiled_steps
from tests.networks import compile_model
from tests.scenarios import X
from tests.scenarios import compare
from tests.scenarios import fit_and_record
from tests.scenarios import small_network


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
        hidden = keras.layers.Dense(
            4, "relu", kernel_constraint=constraint, name="hidden"
        )(inputs)
        return keras.Model(
            inputs,
            {
                "a": keras.layers.Dense(1)(hidden),
                "b": keras.layers.Dense(2)(hidden),
            },
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


@compiled_steps
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
