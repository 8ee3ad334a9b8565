"""Image files in one folder per class."""

import os
import pathlib

import numpy as np

EXTENSIONS = (".jpeg", ".jpg", ".png")
SPLITS = ("train", "val")
LAYOUT = (
    "It must hold the images as `FOLDER/train/CLASS/NAME.JPEG` and "
    "`FOLDER/val/CLASS/NAME.JPEG`, with any names of classes and files and the "
    f"extensions {EXTENSIONS} in either case. Names that begin with a dot do "
    "not count."
)


def class_folders(folder, split):
    """Paths of the images of a split, class by class, and their labels.

    A label, int32, is the place of the class in the sorted list of names.
    """
    names = class_names(folder, split)
    (other,) = set(SPLITS) - {split}
    if (pathlib.Path(folder) / other).is_dir():
        differing = set(names) ^ set(class_names(folder, other))
        if differing:
            raise ValueError(
                "`folder` must have the same classes in `train` and in `val`. "
                f"{sorted(differing)[:5]} are in one of them only. "
                f"Received: folder={os.fspath(folder)!r}"
            )
    paths, labels = [], []
    for label, name in enumerate(names):
        found = sorted(
            entry.path
            for entry in _visible(os.path.join(folder, split, name))
            if entry.name.lower().endswith(EXTENSIONS)
        )
        if not found:
            raise FileNotFoundError(
                f"`folder` has no image of the class {name!r} in `{split}`. "
                f"{LAYOUT} Received: folder={os.fspath(folder)!r}"
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, "int32")


def class_names(folder: str | os.PathLike, split: str = "train") -> list[str]:
    """Names of the classes in a tree of class folders.

    Args:
        folder: String or path, contains the folders `train` and `val`.
        split: String, one of the two. Defaults to `"train"`.

    Returns:
        List of strings in the order of `keras_esam.data.imagenet`'s labels.

    Raises:
        FileNotFoundError: If there are no classes.
    """
    path = pathlib.Path(folder) / split
    names = []
    if path.is_dir():
        names = sorted(e.name for e in _visible(path) if e.is_dir())
    if not names:
        raise FileNotFoundError(
            f"`folder` has no class folders in `{split}`. {LAYOUT} "
            f"Received: folder={os.fspath(folder)!r}"
        )
    return names


def _visible(path):
    """Entries except hidden ones, `.NAME`, of Jupyter, macOS and others."""
    return (e for e in os.scandir(path) if not e.name.startswith("."))
