import pytest

from keras_esam.experiments import speeds
from tests.data.files import write_cifar


@pytest.fixture(autouse=True)
def quick_speeds(monkeypatch):
    monkeypatch.setattr(speeds, "ROUNDS", 2)
    monkeypatch.setattr(speeds, "NUM_STEPS", 3)


@pytest.fixture(scope="package")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=140, num_test=20)
    return folder
