"""What measures a model perturbs its weights, and no scales."""

import keras
import numpy as np
import pytest

from keras_esam import analysis
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import fit
from tests.overwritten import LargestInput
from tests.overwritten import float8_network
from tests.overwritten import is_overwritten
from tests.overwritten import network_with

DATA = dense_data()


def halves(model):
    result = analysis.batch_halves(model, DATA, rho=0.5)
    return [result.perturbed_loss_plus, result.cosine_plus, result.cosine_minus]


MEASURES = {
    "sharpness": lambda model: analysis.sharpness(model, DATA, rho=0.5),
    "hessian": lambda model: analysis.hessian_eigenvalues(model, DATA, 2),
    "landscape": lambda model: (
        analysis.loss_landscape(model, DATA, num_points=3).losses
    ),
    "halves": halves,
}


@pytest.mark.parametrize("name", MEASURES)
def test_results_are_those_without_such_variables(name):
    results = []
    for middle in ([], [LargestInput()]):
        model = compile_to_graph(network_with(*middle))
        for variable in model.trainable_variables:
            if is_overwritten(variable):
                variable.assign(1e6 * keras.ops.ones(1))
        results.append(MEASURES[name](model))
    np.testing.assert_allclose(*results, rtol=1e-4)


def test_float8_is_about_as_sharp_as_float32():
    results = []
    for mode in ("float8", None):
        model = compile_to_graph(float8_network(mode))
        fit(model, *DATA, epochs=3)
        before = model.get_weights()
        results.append(MEASURES["sharpness"](model))
        assert_identical(model.get_weights(), before)
    np.testing.assert_allclose(*results, rtol=0.1)


def test_sharpness_does_not_depend_on_the_units_of_scales():
    """Powers of two shift the exponents of float8 numbers."""
    model = compile_to_graph(float8_network())
    fit(model, *DATA, epochs=3)
    expected = MEASURES["sharpness"](model)
    for variable in model.trainable_variables:
        if is_overwritten(variable):
            variable.assign(variable * (2.0 if variable.shape == () else 1e6))
    np.testing.assert_allclose(MEASURES["sharpness"](model), expected, rtol=0.1)


def test_hessian_of_float8_is_refused():
    model = compile_model(float8_network())
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="no float8 layers.*that was not quan"):
        analysis.hessian_eigenvalues(model, DATA)
