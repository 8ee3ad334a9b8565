import gc
import pathlib

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    # To compile takes most of the time of the tests. Models of one test compile
    # the same steps, and so do other tests.
    jax.config.update("jax_disable_most_optimizations", True)
    folder = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
