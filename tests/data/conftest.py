import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """As for all tests, without clearing a session, in which nothing is."""
    keras.utils.set_random_seed(1)
