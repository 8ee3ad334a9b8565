"""A data set that is not there: the error says how to get it."""

import pytest

from keras_esam import data
from keras_esam.data.prepared import prepared_builder
from tests.data.files import write_cifar


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_cifar(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error:
        data.cifar(name, "train", 8, data_dir=tmp_path)
    message = str(error.value)
    assert f"`tensorflow_datasets.load('{name}', data_dir=DIR)`" in message
    assert str(tmp_path / name) in message
    assert "`data_dir`" in message and "TFDS_DATA_DIR" in message
    assert not list(tmp_path.iterdir())


def test_missing_imagenet(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        data.imagenet("train", 8)
    message = str(error.value)
    for part in ("ILSVRC2012_img_train.tar", "manual", "`folder`"):
        assert part in message
    assert f"data_dir=None, TFDS_DATA_DIR='{tmp_path}'" in message


def test_newest_version_is_read_and_unfinished_ones_are_not(tmp_path):
    write_cifar(tmp_path)
    folder = tmp_path / "cifar10"
    for version in ("3.0.10", "2.9.9", "4.0.0.incompleteABC"):
        (folder / version).symlink_to(folder / "3.0.2")
    builder = prepared_builder("cifar10", tmp_path)
    assert builder.data_path.name == "3.0.10"
