"""Data sets that tensorflow-datasets has prepared on this machine."""

import os
import re

import tensorflow as tf

from keras_esam.extras import requires

ENVIRONMENT = "TFDS_DATA_DIR"
DEFAULT_DIR = os.path.join("~", "tensorflow_datasets")
HOW_TO = {
    "imagenet2012": (
        "It cannot be downloaded by a program: get `ILSVRC2012_img_train.tar` "
        "and `ILSVRC2012_img_val.tar` from image-net.org, put them into "
        "`DIR/downloads/manual` and call "
        '`tensorflow_datasets.builder("imagenet2012", data_dir=DIR)'
        ".download_and_prepare()` once. A tree of class folders is read "
        "without: give it as `folder`. "
    ),
}
DOWNLOAD = (
    "Download it once with `tensorflow_datasets.load({name!r}, data_dir=DIR)`. "
)


def prepared_builder(name, data_dir):
    """Builder of a data set that is there. Nothing is ever downloaded.

    Args:
        name: String.
        data_dir: Optional string or path, the folder of tensorflow-datasets.
            Defaults to the environment variable `TFDS_DATA_DIR`, then to
            `~/tensorflow_datasets`, as there.

    Returns:
        A `tensorflow_datasets.core.DatasetBuilder` of the newest version.
    """
    root = data_dir or os.environ.get(ENVIRONMENT) or DEFAULT_DIR
    root = os.path.expanduser(os.fspath(root))
    pattern = os.path.join(root, name, "*", "dataset_info.json")
    folders = [os.path.dirname(path) for path in tf.io.gfile.glob(pattern)]
    versions = {
        tuple(map(int, os.path.basename(folder).split("."))): folder
        for folder in folders
        if re.fullmatch(r"\d+\.\d+\.\d+", os.path.basename(folder))
    }
    if not versions:
        how = HOW_TO.get(name, DOWNLOAD.format(name=name))
        raise FileNotFoundError(
            f"The data set `{name}` is not in {root!r}. {how}For a machine "
            f"without a network do so elsewhere, copy `DIR/{name}` to "
            f"{os.path.join(root, name)!r}, or anywhere else and give the "
            "folder around it as `data_dir` or in the environment variable "
            f"{ENVIRONMENT}. Received: data_dir={data_dir!r}, "
            f"{ENVIRONMENT}={os.environ.get(ENVIRONMENT)!r}"
        )
    with requires("examples"):
        import tensorflow_datasets as tfds
    return tfds.builder_from_directory(versions[max(versions)])
