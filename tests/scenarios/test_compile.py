"""Metrics, missing losses, constraints and compiled steps."""

import keras
import pytest

import keras_esam
from tests.backends import compiled_steps
from tests.networks import compile_model
from tests.scenarios import compare
from tests.scenarios import fit_and_record
from tests.scenarios import small_network


def error_rate(y_true, y_pred):
    label = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
    largest = keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32")
    wrong = keras.ops.not_equal(label, largest)
    return keras.ops.cast(wrong, "float32")


def test_compiling_again_replaces_metrics_and_optimizer():
    def scenario(model):
        results = []
        for metrics in (["accuracy"], [error_rate]):
            optimizer = keras.optimizers.Adam(0.01)
            compile_model(model, optimizer, run_eagerly=True, metrics=metrics)
            results.append(fit_and_record(model))
            assert int(optimizer.iterations) == 3
        return results

    first, second = compare(scenario)
    assert list(first[0]) == ["accuracy", "loss", "sharpness"]
    assert list(second[0]) == ["error_rate", "loss", "sharpness"]


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
