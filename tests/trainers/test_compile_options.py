"""Optimizers and the options of `compile`."""

import keras
import numpy as np
import pytest

from tests.backends import compiled_steps
from tests.backends import gradients_of
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

optimizers = keras.optimizers

OPTIMIZERS = {
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: optimizers.Adam(
        optimizers.schedules.CosineDecay(0.05, 6)
    ),
    "ema": lambda: optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "clipnorm": lambda: optimizers.SGD(0.5, clipnorm=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.5, global_clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.5, clipvalue=0.01),
    "accumulation": lambda: optimizers.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=3
    ),
    "loss_scale_factor": lambda: optimizers.SGD(0.1, loss_scale_factor=64.0),
}


def sam_by_hand(network, optimizer, x, y, rho):
    """A training loop that sets the variables to theta + eps and back."""
    loss = keras.losses.SparseCategoricalCrossentropy()
    variables = network.trainable_variables
    optimizer.build(variables)

    def gradient(x, y):
        return gradients_of(
            lambda: optimizer.scale_loss(
                loss(y, network(x, training=True)) + sum(network.losses)
            ),
            variables,
        )

    for start in range(0, len(x), 16):
        batch = x[start : start + 16], y[start : start + 16]
        gradients = gradient(*batch)
        ascent = [keras.ops.convert_to_numpy(g) for g in gradients]
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in ascent))
        theta = [v.numpy() for v in variables]
        for v, w, g in zip(variables, theta, ascent, strict=True):
            v.assign(w + rho * g / norm)
        gradients = gradient(*batch)
        for v, w in zip(variables, theta, strict=True):
            v.assign(w)
        optimizer.apply(gradients, variables)
    optimizer.finalize_variable_values(variables)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sam_with_any_optimizer_equals_a_hand_written_loop(name):
    x, y = dense_data(48)

    def make():
        # Adam makes a large step of a bias whose gradient is nothing but
        # rounding, as below BatchNormalization.
        return dense_network(batch_norm=name == "momentum", dropout=False)

    network = make()
    sam_by_hand(network, OPTIMIZERS[name](), x, y, rho=0.2)
    model = esam(make(), rho=0.2, beta=1, gamma=1)
    compile_model(model, OPTIMIZERS[name]())
    before = [w.numpy() for w in model.trainable_variables]
    fit(model, x, y)
    for result, expected, start in zip(
        model.trainable_variables,
        network.trainable_variables,
        before,
        strict=True,
    ):
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert not np.array_equal(result, start)


@compiled_steps
def test_steps_per_execution_holds_one_subset_for_its_steps():
    x, y = dense_data(16 * 6)
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(self.model.upcoming_step)

    model = esam(dense_network(), seed=1)
    model._preferred_pool_size = 2
    compile_to_graph(model, steps_per_execution=3)
    fit(model, x, y, callbacks=[Seen()])
    assert len(set(seen)) == len(seen) == 2
    assert int(model.optimizer.iterations) == 6


@compiled_steps
def test_steps_per_execution_equals_single_steps():
    """With one subset, and a last execution of one step."""
    x, y = dense_data(16 * 3 + 8)
    results = []
    for steps in (1, 3):
        model = esam(dense_network(), beta=1)
        compile_to_graph(model, steps_per_execution=steps)
        history = fit(model, x, y, epochs=2).history
        results.append((all_values(model.model), history))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for key, values in results[0][1].items():
        np.testing.assert_allclose(values, results[1][1][key], atol=1e-5)


@compiled_steps
@pytest.mark.slow
def test_xla_compiles_ragged_batches():
    x, y = dense_data(4)
    model = esam(dense_network(), beta=1, gamma=0.7)
    compile_to_graph(model, jit_compile=True)
    assert model.jit_compile
    history = fit(model, x, y, batch_size=3)
    assert np.isfinite(history.history["loss"][0])
    assert int(model.optimizer.iterations) == 2


def test_train_on_batch_goes_through_the_subsets_like_fit():
    x, y = dense_data(64)
    models = [esam(dense_network(), seed=1) for _ in range(2)]
    for model in models:
        compile_model(model)
    fit(models[0], x, y)
    for start in range(0, 64, 16):
        models[1].train_on_batch(x[start : start + 16], y[start : start + 16])
    for a, b in zip(*map(all_values, models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_generators_and_unknown_lengths():
    x, y = dense_data(40)

    def batches():
        for start in (0, 16, 32):
            yield x[start : start + 16], y[start : start + 16]

    model = compile_model(esam(dense_network(), seed=1))
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(batches(), shuffle=False, verbose=0)
    expected = compile_model(esam(dense_network(), seed=1))
    fit(expected, x, y)
    for a, b in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # The call that found no batch was not a step.
    assert model._progress.num_executions == 3


def test_compile_again_after_freezing_a_layer():
    x, y = dense_data(32)
    network = dense_network()
    model = compile_model(esam(network, seed=1))
    fit(model, x, y)
    network.layers[0].trainable = False
    frozen = network.layers[0].kernel.numpy()
    compile_model(model)
    fit(model, x, y)
    assert_identical([frozen], [network.layers[0].kernel])
    assert max(max(s) for s in model.subset_pool.subsets) == 3


def test_seed_is_known_after_set_random_seed():
    seeds = []
    for _ in range(2):
        keras.utils.set_random_seed(11)
        seeds.append(esam(dense_network()).seed)
        keras.utils.set_random_seed(11)
    keras.utils.set_random_seed(12)
    network = dense_network(seed=12)
    assert seeds[0] == seeds[1]
    keras.utils.set_random_seed(13)
    assert esam(network).seed != seeds[0]


def test_clone_and_pickle():
    import copy
    import pickle

    x, y = dense_data(32)
    model = compile_model(esam(dense_network(), seed=1))
    fit(model, x, y)
    for duplicate in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        assert_identical(all_values(duplicate), all_values(model))
    clone = keras.models.clone_model(model)
    assert clone.get_config()["seed"] == 1


def test_network_saved_alone_is_plain_keras(tmp_path):
    x, y = dense_data(32)
    model = compile_model(esam(dense_network()))
    fit(model, x, y)
    model.model.save(tmp_path / "network.keras")
    network = keras.saving.load_model(tmp_path / "network.keras")
    assert type(network) is keras.Sequential
    outputs = [keras.ops.convert_to_numpy(m(x)) for m in (network, model)]
    np.testing.assert_array_equal(*outputs)
