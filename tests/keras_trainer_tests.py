"""Keras' own tests of `fit`, `evaluate` and `predict`, around `ESAMModel`.

Command:   python -m tests.keras_trainer_tests KERAS
           where KERAS is a checkout or an unpacked sdist of the same version,
           and arguments of pytest may follow
Result:    pytest's, and which tests differ from `DIFFERENCES`, the exit code
Time:      about 10 minutes on one core

A copy of `keras/src/trainers/trainer_test.py` is changed in two ways: networks
are `keras.Model`s, and each one that is made is wrapped in an `ESAMModel` that
takes steps of SAM with a `rho` so small that results are Keras'.
"""

import ast
import os
import pathlib
import sys
import tempfile

import keras
import pytest

import keras_esam

RHO = 1e-7
SOURCE = "keras/src/trainers/trainer_test.py"
MODELS = {"keras.Sequential", "keras.Model", "models.Model"}
# The `__init__` of a layer of the tests calls this one by `super()`, or not.
PREAMBLE = """
from tests.keras_trainer_tests import wrapped

class Trainer(keras.Model):
    def __init__(self, **kwargs):
        if not hasattr(self, "is_made"):
            super().__init__(**kwargs)
            self.is_made = True
"""
# Reason to the tests that fail for it.
DIFFERENCES = {
    "`sharpness` is one more metric of training": (
        "callback_methods_keys",
        "metric_tracking",
        "multiple_compiles",
        "nested_trainer_metrics",
        "nested_trainer_metrics_without_compile",
        "on_batch_methods_eager",
        "on_batch_methods_graph_fn",
        "on_batch_methods_jit",
        "recompile",
        "symbolic_build",
    ),
    "a network may not have its own steps or loss, a subclass may": (
        "compute_loss_no_training_backwards_compatibility",
        "evaluate_with_custom_compute_loss",
        "evaluate_with_custom_test_step_dict",
        "evaluate_with_custom_test_step_flat",
        "fit_with_custom_train_step",
        "fwd_pass_loss_presence_in_compute_loss",
        "metric_update_in_compute_loss",
        "retracing",
    ),
    "a network without trainable weights is an error": (
        "adds_loss_scaling_optimizer",
        "fit_with_different_batch_size_same_loss",
        "trainer_with_raggeds_functional",
        "trainer_with_raggeds_layer",
        "trainer_with_raggeds_model",
        "training_arg",
    ),
    "a network's own attributes are not the `ESAMModel`'s": (
        "callbacks_can_update_state_at_batch_boundary",
    ),
    # Not of `ESAMModel`: a `keras.Model` may not set `layers`.
    "the layer of the test cannot be a model": (
        "loss_scaling_prevents_underflow",
    ),
}


def wrapped(model):
    """The model in an `ESAMModel`, which the changed tests call."""
    return keras_esam.ESAMModel(model, rho=RHO, ascent_fraction=1)


class Wrapper(ast.NodeTransformer):
    """Wraps the networks that a module makes."""

    def __init__(self, tree):
        self.names = set(MODELS)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                if bases & (self.names | {"Trainer"}):
                    self.names.add(node.name)

    def visit_ClassDef(self, node):
        """Layers mixed with Keras' `Trainer` become models."""
        self.generic_visit(node)
        bases = {ast.unparse(base): base for base in node.bases}
        if "Trainer" in bases:
            # Behind the layer, whose `call` and `build` count.
            last = bases.pop("Trainer")
            bases.pop("layers.Layer", None)
            node.bases = [*bases.values(), last]
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if ast.unparse(node.func) not in self.names:
            return node
        return ast.Call(ast.Name("wrapped", ast.Load()), [node], [])


def changed(source):
    """Source text of the tests with wrapped networks."""
    tree = ast.parse(source)
    tree = Wrapper(tree).visit(tree)
    start = next(
        index
        for index, node in enumerate(tree.body)
        if isinstance(node, ast.ClassDef)
    )
    tree.body[start:start] = ast.parse(PREAMBLE).body
    return ast.unparse(ast.fix_missing_locations(tree))


class Outcomes:
    """Plugin of pytest that collects the names of what failed and passed."""

    def __init__(self):
        self.failed, self.passed = set(), set()

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rsplit("::", 1)[1].removeprefix("test_")
        if report.failed:
            self.failed.add(name)
        elif report.passed and report.when == "call":
            self.passed.add(name)


def main(arguments=None):
    root, *options = sys.argv[1:] if arguments is None else arguments
    source = (pathlib.Path(root) / SOURCE).read_text()
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trainer_test.py"
        path.write_text(changed(source))
        always = ["-q", "-p", "no:cacheprovider", "-c", os.devnull]
        always += ["-W", "ignore"]
        pytest.main([*always, str(path), *options], [outcomes])
    expected = {name for names in DIFFERENCES.values() for name in names}
    fail = outcomes.failed - expected
    differ = outcomes.passed & expected
    print(
        f"Keras {keras.__version__}: {len(outcomes.passed)} passed, "
        f"{len(outcomes.failed)} failed. Unlike `DIFFERENCES`, "
        f"failed: {sorted(fail)}, passed: {sorted(differ)}"
    )
    return int(bool(fail or differ) or not outcomes.passed)


if __name__ == "__main__":
    sys.exit(main())
