import pytest

from benchmarks.paper import tables
from tests.data.files import write_cifar


@pytest.fixture(autouse=True)
def quick_speeds(monkeypatch):
    monkeypatch.setattr(tables, "ROUNDS", 2)
    monkeypatch.setattr(tables, "NUM_STEPS", 4)


@pytest.fixture(scope="package")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=40, num_test=20)
    return folder
