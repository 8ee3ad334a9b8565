"""Ten steps through `fit` against the step written by hand in NumPy."""

import keras
import pytest

from tests import conftest
from tests import reference_run
from tests.backends import BACKEND
from tests.methods import METHODS

PiecewiseConstantDecay = keras.optimizers.schedules.PiecewiseConstantDecay
PolynomialDecay = keras.optimizers.schedules.PolynomialDecay

MORE = {
    "swp_uneven_probabilities": {
        "gamma": 1,
        "beta": 0.37,
        "granularity": "variable",
    },
    "swp_weight_authors": {
        "gamma": 1,
        "granularity": "weight",
        "scale": "authors",
    },
    "swp_depth_authors": {"gamma": 1, "scale": "authors"},
    "esam_depth_small_beta": {"beta": 0.3},
    "esam_loss_adaptive": {"rank_by": "loss", "adaptive": True, "gamma": 0.3},
    "esam_schedules": {
        "rho": PolynomialDecay(0.3, decay_steps=8, end_learning_rate=0.1),
        "beta": PiecewiseConstantDecay([2, 6], [1.0, 0.5, 0.75]),
        "gamma": PiecewiseConstantDecay([4], [1.0, 0.5]),
    },
    "one_step_start": {"gamma": 1, "ascent": "momentum", "start": 2},
    "sam_micro_batches": {"beta": 1, "gamma": 1, "micro_batch_size": 4},
    "sam_part_third": {"beta": 1, "gamma": 1, "ascent_fraction": 1 / 3},
    "sam_part_micro_batches": {
        **{"beta": 1, "gamma": 1, "micro_batch_size": 4},
        "ascent_fraction": 0.5,
    },
    "swp_part_adaptive": {
        **{"gamma": 1, "adaptive": True, "granularity": "variable"},
        "ascent_fraction": 0.25,
    },
    "sam_rho_stages": {
        **{"beta": 1, "gamma": 1},
        "rho": PiecewiseConstantDecay([3, 7], [0.0, 0.3, 0.1]),
    },
    "esam_uneven_micro_batches": {"micro_batch_size": 4},
}
ALL = METHODS | MORE
COMPILED = ["esam_depth", "one_step_loss"]
if BACKEND == "jax":
    # On which eager steps take long.
    CHECKED = ["sam", "esam_depth", "esam_weight", "sds_loss", "one_step"]
    CHECKED += ["esam_start", "sam_micro_batches", "sam_part_micro_batches"]
else:
    # All kinds, and of the sources of randomness each once.
    CHECKED = [name for name in METHODS if not name.endswith("_random")]
    CHECKED += ["sds_random", "one_step_random", *MORE]
    COMPILED += ["esam_uneven_micro_batches", "esam_schedules"]


def checked(names, also=()):
    """Parametrizes over methods, of which some are slow ones."""
    slow = [
        pytest.param(n, marks=pytest.mark.slow) for n in also if n not in names
    ]
    return pytest.mark.parametrize("method", [*names, *slow])


def case(method, **kwargs):
    arguments = {"rho": 0.3, "seed": 5, **ALL[method]}
    return reference_run.Case(arguments, **kwargs)


@checked(CHECKED, also=ALL)
def test_ten_steps_equal_the_reference(method):
    if BACKEND == "torch":  # Keras computes parts of it in float32 there.
        assert reference_run.check(case(method), 1e-5) > 0.01
        return
    conftest.set_float64(True)
    try:
        assert reference_run.check(case(method), 1e-10) > 0.01
    finally:
        conftest.set_float64(False)


@pytest.mark.skipif(BACKEND == "torch", reason="It compiles nothing.")
@pytest.mark.parametrize("method", COMPILED)
def test_ten_compiled_steps_equal_the_reference_in_float32(method):
    reference_run.check(case(method, run_eagerly=False), 1e-5)
