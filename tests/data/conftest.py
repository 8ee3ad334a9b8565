"""The pipelines do not depend on Keras' backend: they are tested on one."""

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _seeded():
    """As for all tests, without clearing a session, in which nothing is."""
    keras.utils.set_random_seed(1)
