"""What ESAM reduces to, and what training must leave alone."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import PAPER
from tests.networks import SubclassedNetwork
from tests.networks import all_values
from tests.networks import assert_different
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

METHODS = [
    {"beta": 1, "gamma": 1},
    {},
    {"granularity": "weight", "rank_by": "random"},
    {"rank_by": "loss"},
    {"adaptive": True},
]


def test_rho_0_equals_the_bare_model_bit_for_bit():
    x, y = dense_data(56)
    results = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        network = SubclassedNetwork()
        model = network
        if wrap:
            model = keras_esam.ESAMModel(network, rho=0, seed=1)
        compile_to_graph(model, keras.optimizers.Adam(1e-2))
        history = fit(model, x, y, epochs=2, validation_data=(x, y))
        results.append((all_values(network), history.history))
    assert_identical(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_layer_unfrozen_in_a_frozen_model_does_not_train():
    x, y = dense_data()
    model = compile_model(keras_esam.ESAMModel(dense_network(), rho=0))
    model.trainable = False
    model.model.layers[-1].trainable = True
    before = [value.copy() for value in model.model.get_weights()]
    fit(model, x, y)
    trained = [variable.path for variable in model.trainable_variables]
    assert trained == [] and model.upcoming_step.is_base_step
    kernel, bias = model.model.get_weights()[-2:]
    np.testing.assert_array_equal(kernel, before[-2])
    np.testing.assert_array_equal(bias, before[-1])


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_all_but_the_weights_is_that_of_a_bare_run_step_for_step(method):
    """At learning rate 0: statistics and dropout seeds move once a step, and
    loss and metrics are clean. At this radius any other pass would show."""
    x, y = dense_data(48)
    bare = compile_model(dense_network(), keras.optimizers.SGD(0.0))
    network = dense_network()
    model = esam(network, rho=50.0, **method)
    compile_model(model, keras.optimizers.SGD(0.0, momentum=0.9))
    weights = [w.numpy() for w in network.trainable_variables]
    before = [v.numpy() for v in network.non_trainable_variables]
    for step in range(3):
        batch = slice(16 * step, 16 * (step + 1))
        bare_logs = bare.train_on_batch(x[batch], y[batch], return_dict=True)
        logs = model.train_on_batch(x[batch], y[batch], return_dict=True)
        assert_identical(
            bare.non_trainable_variables, network.non_trainable_variables
        )
        assert logs["loss"] == bare_logs["loss"]
        assert logs["accuracy"] == bare_logs["accuracy"]
        # ASAM moves no bias that is 0.
        assert logs.get("sharpness", 2) > 1 or "adaptive" in method
    assert_different(before, network.non_trainable_variables)
    assert_identical(weights, network.trainable_variables)
    assert int(model.optimizer.iterations) == 3


@pytest.mark.parametrize(
    ("method", "logged"),
    [
        ({"rho": 0}, False),
        ({"gamma": 1}, True),
        ({}, True),
        ({"rank_by": "loss"}, False),
    ],
    ids=str,
)
def test_sharpness_is_logged_where_it_costs_nothing(method, logged):
    x, y = dense_data(16)
    model = compile_model(esam(dense_network(), **method))
    history = fit(model, x, y, validation_data=(x, y)).history
    assert ("sharpness" in history) == logged
    assert "val_sharpness" not in history
    assert "sharpness" not in model.evaluate(x, y, verbose=0, return_dict=True)


@pytest.mark.parametrize("method", [{"gamma": 1}, {}], ids=str)
def test_sharpness_is_the_mean_rise_over_the_samples(method):
    """Two batches, 16 and 8 samples: the epoch's mean is over samples."""
    x, y = dense_data(24)
    means = []
    for batch in (slice(0, 16), slice(16, 24)):
        model = esam(dense_network(dropout=False), rho=0.2, beta=1, **method)
        compile_model(model, keras.optimizers.SGD(0.0))
        logs = model.train_on_batch(x[batch], y[batch], return_dict=True)
        means.append(logs["sharpness"])
    model = esam(dense_network(dropout=False), rho=0.2, beta=1, **method)
    compile_model(model, keras.optimizers.SGD(0.0))
    history = fit(model, x, y).history
    np.testing.assert_allclose(
        history["sharpness"][0], (2 * means[0] + means[1]) / 3, rtol=1e-5
    )


def count_forward_passes(**kwargs):
    calls = []

    class Counted(keras.layers.Layer):
        def call(self, inputs):
            calls.append(tuple(inputs.shape))
            return inputs

    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8),  # is perturbed, so what follows runs anew
            Counted(),
            keras.layers.Dense(3),
        ]
    )
    model = esam(network, **kwargs)
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((8, 8), "float32")
    fit(model, x, x[:, :3])  # also what building costs
    calls.clear()
    fit(model, x, x[:, :3])
    return [shape[0] for shape in calls]


@pytest.mark.parametrize(
    ("kwargs", "batch_sizes"),
    [
        ({"rho": 0}, [8]),
        ({"beta": 1, "gamma": 1}, [8, 8]),
        ({"beta": 1}, [8, 8, 4]),
        ({"rank_by": "loss", "beta": 1}, [8, 4]),
        ({"rank_by": "random", "beta": 1}, [8, 4]),
    ],
    ids=str,
)
def test_no_forward_pass_runs_that_the_setting_does_not_need(
    kwargs, batch_sizes
):
    assert count_forward_passes(**kwargs) == batch_sizes


class KeepsSizes(keras_esam.ESAMModel):
    """Records the number of samples that each computed loss is of."""

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        self.sizes.append(len(y))
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
        return keras.losses.sparse_categorical_crossentropy(y, y_pred)


def test_samples_are_selected_when_a_subset_is_empty():
    """One variable at beta=0.6: two of the five subsets are empty."""
    x, y = dense_data(16 * 5)
    stack = [keras.Input((8,)), keras.layers.Dense(3, "softmax", False)]
    model = KeepsSizes(
        keras.Sequential(stack), granularity="variable", seed=1, **PAPER
    )
    model.sizes = []
    assert sorted(map(len, model.subset_pool.subsets)) == [0, 0, 1, 1, 1]
    compile_model(model, run_eagerly=True)
    model.train_on_batch(x[:16], y[:16])
    del model.sizes[:]
    fit(model, x, y)
    assert model.sizes == [16, 8] * 5


def test_setting_an_attribute_changes_the_training():
    x, y = dense_data(32)
    weights = []
    for late in (False, True):
        before = {"rho": 0.05, "gamma": 0.5}
        after = {"rho": 0.5, "gamma": 0.25}
        model = esam(
            dense_network(), seed=1, beta=1, **(before if late else after)
        )
        compile_model(model)
        if late:
            state = all_values(model)
            fit(model, x, y)
            for name, value in after.items():
                setattr(model, name, value)
            for variable, value in zip(model.variables, state, strict=False):
                variable.assign(value)
            for variable in model.optimizer.variables[2:]:
                variable.assign(keras.ops.zeros_like(variable.value))
        fit(model, x, y)
        weights.append(model.get_weights())
    assert_identical(*weights)


def test_seed_that_is_set_is_that_of_a_new_model():
    x, y = dense_data(32)
    results = []
    for seed, late in ((1, None), (3, None), (1, 3)):
        model = esam(
            dense_network(dropout=False),
            seed=seed,
            granularity="variable",
            rank_by="random",
        )
        compile_model(model)
        model.make_train_function()
        if late is not None:
            model.seed = late
        fit(model, x, y)
        results.append(model.get_weights())
    assert_identical(results[1], results[2])
    assert not np.array_equal(results[0][0], results[1][0])
