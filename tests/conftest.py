import pathlib

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    # Models of one test compile the same steps, and so do other tests.
    folder = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(1)
    yield
    keras.backend.clear_session()


@pytest.fixture
def float64():
    set_float64(True)
    yield
    set_float64(False)


def set_float64(enabled):
    if keras.backend.backend() == "jax":
        jax.config.update("jax_enable_x64", enabled)
    keras.config.set_floatx("float64" if enabled else "float32")
    keras.config.set_dtype_policy(keras.config.floatx())
