"""Perturbations of a choice of the weights: `perturbable`."""

import keras
import numpy as np
import pytest

from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

layers = keras.layers


@keras.saving.register_keras_serializable(package="tests")
def is_bias(variable):
    return variable.path.endswith("bias")


def make(network=None, **kwargs):
    kwargs = {"beta": 1, "gamma": 1, "seed": 1, "rho": 0.5, **kwargs}
    return esam(network or dense_network(), **kwargs)


def paths(model, indices):
    return [model.trainable_variables[index].path for index in indices]


def test_normalization_is_scales_and_shifts_of_such_layers_at_any_depth():
    inner = keras.Sequential([layers.Dense(4), layers.LayerNormalization()])
    network = keras.Sequential(
        [
            keras.Input((6, 8)),
            layers.Dense(8),
            layers.GroupNormalization(2),
            layers.TimeDistributed(layers.BatchNormalization(scale=False)),
            inner,
        ]
    )
    model = make(network, perturbable="normalization")
    assert [
        path.split("/")[-1] for path in paths(model, model._variables.order)
    ] == [
        *("gamma", "beta", "beta", "gamma", "beta"),
    ]


class Block(layers.Layer):
    """Its parts are attributes, and not in a list of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(8), layers.LayerNormalization()
        self.layers = 3

    def call(self, inputs):
        return self.norm(self.dense(inputs))


def test_normalization_in_a_layer_is_found():
    network = keras.Sequential([keras.Input((8,)), Block(), layers.Dense(3)])
    model = make(network, perturbable="normalization")
    assert len(model.subset_pool.subsets[0]) == 2


def test_choice_that_is_set_later_is_in_the_pool():
    model = compile_model(make())
    fit(model, *dense_data(16))
    compile_model(model)
    model.perturbable = "normalization"
    assert len(model.subset_pool.subsets[0]) == 2
    model.perturbable = None
    model.model.layers[0].trainable = False
    assert model.upcoming_step.subset == (0, 1, 2, 3)


def test_step_is_that_of_sam_on_the_chosen_weights():
    """The gradient at the biases plus eps, whose norm is theirs alone."""
    x, y = dense_data(16)
    network = dense_network(batch_norm=False, dropout=False)
    model = make(network, perturbable=is_bias)
    compile_model(model, keras.optimizers.SGD(1.0))
    before = network.get_weights()
    steps = []
    for weights in range(2):
        bare = dense_network(batch_norm=False, dropout=False)
        compile_model(bare, keras.optimizers.SGD(1.0))
        if weights:
            norm = np.sqrt(np.sum(steps[0][1] ** 2) + np.sum(steps[0][3] ** 2))
            bare.set_weights(
                [
                    w - 0.5 * step / norm if index % 2 else w
                    for index, (w, step) in enumerate(
                        zip(before, steps[0], strict=True)
                    )
                ]
            )
        start = bare.get_weights()
        fit(bare, x, y)
        steps.append(
            [b - a for a, b in zip(start, bare.get_weights(), strict=True)]
        )
    fit(model, x, y)
    for old, new, step in zip(
        before, network.get_weights(), steps[1], strict=True
    ):
        np.testing.assert_allclose(new, old + step, atol=1e-6)


@pytest.mark.parametrize("granularity", ["depth", "variable"])
def test_subsets_are_those_of_the_chosen_weights(granularity):
    model = make(beta=0.5, perturbable=is_bias, granularity=granularity)
    pool = model.subset_pool
    assert {
        path.split("/")[-1] for path in paths(model, sum(pool.subsets, ()))
    } == {"bias"}
    fit(compile_model(model), *dense_data(32))


@pytest.mark.parametrize("choice", ["normalization", is_bias])
def test_saved_model_goes_on(choice, tmp_path):
    x, y = dense_data(32)
    model = compile_model(make(perturbable=choice))
    fit(model, x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    assert loaded.perturbable == choice
    fit(model, x, y)
    fit(loaded, x, y)
    assert_identical(all_values(loaded), all_values(model))


def test_choice_without_a_weight_is_an_error():
    network = dense_network(batch_norm=False)
    model = compile_model(make(network, perturbable="normalization"))
    with pytest.raises(ValueError, match="`perturbable` must choose some"):
        fit(model, *dense_data(16))


@pytest.mark.parametrize("choice", ["norm", 3])
def test_choice_is_a_function_or_a_known_name(choice):
    with pytest.raises(ValueError, match=f"Received: perturbable={choice!r}"):
        make(perturbable=choice)
