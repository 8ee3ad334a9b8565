import pathlib

import numpy as np
import pytest

from keras_esam.data.class_folders import class_folders
from keras_esam.data.class_folders import class_names
from tests.data.files import write_tree


def names_of(paths):
    return [pathlib.Path(path).name for path in paths]


def test_labels_follow_the_sorted_names_and_other_files_do_not_count(tmp_path):
    files = [
        *("train/dog/b.JPEG", "train/dog/a.jpg", "train/dog/notes.txt"),
        *("train/Cat/c.jpeg", "train/ant/d.PNG", "train/README"),
    ]
    write_tree(tmp_path, {name: b"" for name in files})
    paths, labels = class_folders(tmp_path, "train")
    assert names_of(paths) == ["c.jpeg", "d.PNG", "a.jpg", "b.JPEG"]
    np.testing.assert_array_equal(labels, [0, 1, 2, 2])
    assert class_names(tmp_path) == ["Cat", "ant", "dog"]


def test_hidden_folders_and_files_do_not_count(tmp_path):
    files = [
        *("train/.ipynb_checkpoints/1-checkpoint.jpg", "train/a/1.JPEG"),
        *("train/a/._1.JPEG", "train/.DS_Store", "val/a/1.JPEG"),
    ]
    write_tree(tmp_path, {name: b"" for name in files})
    paths, _ = class_folders(tmp_path, "train")
    assert names_of(paths) == ["1.JPEG"]
    assert class_names(tmp_path) == class_names(tmp_path, "val") == ["a"]


def test_both_parts_have_the_same_labels(tmp_path):
    files = ["train/b/1.JPEG", "train/a/1.JPEG", "val/a/1.JPEG", "val/b/1.JPEG"]
    write_tree(tmp_path, {name: b"" for name in files})
    for split in ("train", "val"):
        paths, _ = class_folders(str(tmp_path), split)
        assert [pathlib.Path(path).parent.name for path in paths] == ["a", "b"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_classes_in_the_other_part(tmp_path, split):
    write_tree(tmp_path, {"train/a/1.JPEG": b"", "val/b/1.JPEG": b""})
    with pytest.raises(ValueError, match=r"same classes.*\['a', 'b'\]"):
        class_folders(tmp_path, split)


@pytest.mark.parametrize("files", [[], ["val/a/1.JPEG"], ["train/1.JPEG"]])
def test_no_classes(tmp_path, files):
    write_tree(tmp_path, {name: b"" for name in files})
    message = "no class folders in `train`. It must hold .*`FOLDER/train/CLASS"
    with pytest.raises(FileNotFoundError, match=message):
        class_folders(tmp_path, "train")


def test_class_without_images(tmp_path):
    write_tree(tmp_path, {"train/a/1.JPEG": b"", "train/b/1.txt": b""})
    with pytest.raises(FileNotFoundError, match="no image of the class 'b'"):
        class_folders(tmp_path, "train")
