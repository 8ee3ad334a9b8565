import gc

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)
    yield
    keras.backend.clear_session()
    # It collects garbage, and TensorFlow keeps all graphs alive: to look at
    # them again after each test took half of the time of the whole suite.
    gc.freeze()


@pytest.fixture
def float64():
    set_float64(True)
    yield
    set_float64(False)


@pytest.fixture
def float16():
    yield from _policy("mixed_float16")


@pytest.fixture
def bfloat16():
    yield from _policy("mixed_bfloat16")


def _policy(name):
    keras.config.set_dtype_policy(name)
    yield
    keras.config.set_dtype_policy("float32")


def set_float64(enabled):
    if keras.backend.backend() == "jax":
        jax.config.update("jax_enable_x64", enabled)
    keras.config.set_floatx("float64" if enabled else "float32")
    keras.config.set_dtype_policy(keras.config.floatx())
