import keras
import pytest


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
        import jax

        jax.config.update("jax_enable_x64", enabled)
    keras.config.set_floatx("float64" if enabled else "float32")
    keras.config.set_dtype_policy(keras.config.floatx())
