"""`ascent="previous"`: one forward and one backward pass a step."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import all_values
from tests.networks import assert_different
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit


def one_step(network, **kwargs):
    arguments = {"beta": 1, "gamma": 1, "seed": 1, **kwargs}
    return keras_esam.ESAMModel(network, ascent="previous", **arguments)


def stored(model):
    return [v.numpy() for v in model._gradient_memory.variables]


def test_first_step_is_that_of_the_base_optimizer():
    """Statistics, seeds and metrics included: there is no gradient yet."""
    x, y = dense_data(16)
    results = []
    for model in (
        one_step(dense_network()),
        keras_esam.ESAMModel(dense_network(), rho=0, seed=1),
    ):
        logs = fit(compile_model(model), x, y).history
        results.append((all_values(model.model), logs))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for key, values in results[1][1].items():
        assert results[0][1][key] == pytest.approx(values)


def test_gradient_of_the_last_update_is_kept():
    x, y = dense_data(32)
    model = one_step(dense_network())
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    fit(model, x[:16], y[:16])
    for batch in (x[:16], y[:16]), (x[16:], y[16:]):
        before = [w.numpy() for w in model.trainable_variables]
        fit(model, *batch)
        for old, new, gradient in zip(
            before, model.trainable_variables, stored(model), strict=True
        ):
            np.testing.assert_allclose(old - new, gradient, atol=1e-6)
            assert np.abs(gradient).max() > 0


def test_logged_loss_is_that_at_the_perturbed_weights():
    x, y = dense_data(16)
    network = dense_network(batch_norm=False, dropout=False)
    model = one_step(network, rho=0.5)
    compile_model(model, keras.optimizers.SGD(0.1))
    fit(model, x, y)
    theta, gradients = network.get_weights(), stored(model)
    norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients))
    other = compile_model(dense_network(batch_norm=False, dropout=False))
    other.set_weights(
        [w + 0.5 * g / norm for w, g in zip(theta, gradients, strict=True)]
    )
    expected = other.evaluate(x, y, verbose=0, return_dict=True)
    logs = fit(model, x, y).history
    assert logs["loss"][0] == pytest.approx(expected["loss"], rel=1e-5)
    assert logs["accuracy"][0] == pytest.approx(expected["accuracy"])
    assert "sharpness" not in logs


def test_weights_of_a_model_that_has_not_trained_bring_no_gradient(tmp_path):
    x, y = dense_data(32)
    model = compile_model(one_step(dense_network()))
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "start.weights.h5")
    fit(model, x, y)
    first = all_values(model)
    model.load_weights(tmp_path / "start.weights.h5")
    assert not any(np.any(gradient) for gradient in stored(model))
    fit(model, x, y)
    assert_identical(first, all_values(model))


def test_gradient_that_is_not_finite_perturbs_nothing():
    x, y = dense_data(16)
    results = []
    for poisons in False, True:
        model = compile_model(one_step(dense_network()))
        fit(model, x, y)
        model._gradient_memory.clear()
        if poisons:
            gradient = stored(model)[2]
            gradient.flat[0] = np.inf
            model._gradient_memory.variables[2].assign(gradient)
        logs = fit(model, x, y).history
        assert np.all(np.isfinite(stored(model)[2]))
        results.append((all_values(model), logs))
    assert_identical(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_gradients_of_other_layers_stay_when_one_is_frozen():
    x, y = dense_data(16)
    network = dense_network(dropout=False)
    model = compile_model(one_step(network))
    fit(model, x, y)
    before = stored(model)
    network.layers[0].trainable = False
    model._gradient_memory.build(model.trainable_variables)
    assert_identical(before[2:], stored(model))
    fit(model, x, y)
    assert len(stored(model)) == len(before) - 2
    assert_different(before[2:], stored(model))


@pytest.mark.parametrize("frozen_first", [False, True])
def test_gradient_is_loaded_to_its_own_weight(tmp_path, frozen_first):
    """Other layers may be frozen in the model that loads it."""

    def make(frozen):
        stack = [keras.Input((8,))]
        stack += [keras.layers.Dense(8, use_bias=False) for _ in range(3)]
        stack[1].trainable = not frozen
        model = one_step(keras.Sequential(stack))
        model.compile("sgd", "mse")
        return model

    x, _ = dense_data(32)
    saved, loaded = make(frozen_first), make(not frozen_first)
    fit(saved, x, x)
    saved.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert_identical(stored(saved)[-2:], stored(loaded)[-2:])
    assert len(stored(loaded)) == 3 - (not frozen_first)
    if frozen_first:
        assert not stored(loaded)[0].any()
    plain = keras_esam.ESAMModel(keras.models.clone_model(saved.model))
    plain.load_weights(tmp_path / "model.weights.h5")
    assert not stored(plain)


def test_gradient_of_long_ago_is_forgotten():
    x, y = dense_data(16)
    model = compile_model(one_step(dense_network()))
    fit(model, x, y)
    assert np.any(stored(model)[0])
    model.ascent = "current"
    fit(model, x, y)
    model.ascent = "previous"
    assert not any(np.any(gradient) for gradient in stored(model))


def test_sharpness_ranking_has_nothing_to_compare():
    message = '`ascent="previous"` runs no pass .* Received: gamma=0.5'
    with pytest.raises(ValueError, match=message):
        one_step(dense_network(), gamma=0.5)
    for has_trained in (False, True):
        model = compile_model(one_step(dense_network()))
        if has_trained:
            fit(model, *dense_data(16))
        model.gamma = 0.5
        with pytest.raises(ValueError, match=message):
            fit(model, *dense_data(16))
