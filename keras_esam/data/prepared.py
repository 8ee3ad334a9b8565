"""Data sets that tensorflow-datasets has prepared on this machine."""

import os
import re

import tensorflow as tf

from keras_esam.data import epochs
from keras_esam.extras import requires

ENVIRONMENT = "TFDS_DATA_DIR"
DOWNLOAD = (
    "Download it once with `tensorflow_datasets.load({name!r}, data_dir=DIR)`. "
)
BY_HAND = (
    "It cannot be downloaded by a program: get `ILSVRC2012_img_train.tar` and "
    "`ILSVRC2012_img_val.tar` from image-net.org, put them into "
    "`DIR/downloads/manual` and call "
    '`tensorflow_datasets.builder("imagenet2012", data_dir=DIR)'
    ".download_and_prepare()` once. A tree of class folders is read without: "
    "give it as `folder`. "
)
# Of `imagenet2012`.
SPLITS = {"train": "train", "val": "validation"}
NUM_OPEN_FILES = 16
BUFFER_SIZE = 4096  # Images of 110 kB on average.


def prepared_builder(name, data_dir):
    """Builder of a data set's newest version. Downloads nothing."""
    root = data_dir or os.environ.get(ENVIRONMENT) or "~/tensorflow_datasets"
    root = os.path.expanduser(os.fspath(root))
    pattern = os.path.join(root, name, "*", "dataset_info.json")
    folders = [os.path.dirname(path) for path in tf.io.gfile.glob(pattern)]
    versions = {
        tuple(map(int, os.path.basename(folder).split("."))): folder
        for folder in folders
        if re.fullmatch(r"\d+\.\d+\.\d+", os.path.basename(folder))
    }
    if not versions:
        how = BY_HAND if name == "imagenet2012" else DOWNLOAD.format(name=name)
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


def record_files(split, data_dir, seed, epoch, num_samples=None):
    """Undecoded images of `imagenet2012`, all or the first `num_samples`.

    Returns a `tf.data.Dataset` of known length: bytes of an image and its
    label, int32. With a seed the files are shuffled, then the images within a
    buffer, and each element has a seed too, int64 of shape `(2,)`.
    """
    builder = prepared_builder("imagenet2012", data_dir)
    splits, features = builder.info.splits, builder.info.features
    available = splits[SPLITS[split]].num_examples
    kind = builder.info.file_format.value
    if kind != "tfrecord":
        raise ValueError(
            "`data_dir` must have `imagenet2012` in TFRecord files. Prepare it "
            f'with `file_format="tfrecord"`. Received: data_dir={data_dir!r} '
            f"with files of format {kind!r}"
        )
    count = available if num_samples is None else num_samples
    if count > available:
        raise ValueError(
            f"`num_samples` must be at most {available}. "
            f"Received: num_samples={num_samples}"
        )
    parts = splits[f"{SPLITS[split]}[:{count}]"].file_instructions
    files = [str(part.filename) for part in parts]
    if seed is None:
        records = tf.data.TFRecordDataset(files).take(count)
    else:
        sizes = [part.take for part in parts]
        records = _shuffled(files, sizes, seed, epoch)
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(record, *seed):
        sample = features.deserialize_example(record, decoders=decoders)
        return sample["image"], tf.cast(sample["label"], "int32"), *seed

    cardinality = tf.data.experimental.assert_cardinality(count)
    return records.apply(cardinality).map(parse, epochs.NUM_PARALLEL)


def _shuffled(files, sizes, seed, epoch):
    """Data set of records and seeds: the first `size` records of each file."""
    files, sizes = tf.constant(files), tf.constant(sizes, "int64")

    def epoch_records(keys):
        order_keys = tf.random.split(keys[0])
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(files)), order_keys[0]
        )
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            lambda i: tf.data.TFRecordDataset(files[i]).take(sizes[i]),
            cycle_length=NUM_OPEN_FILES,
            block_length=NUM_OPEN_FILES,
            num_parallel_calls=min(epochs.NUM_PARALLEL, NUM_OPEN_FILES),
            deterministic=True,
        )
        # `shuffle` mixes the global seed into its own: here the seed of this
        # function's graph. It must not be 0, with which it takes no tensor.
        tf.random.set_seed(1)
        records = records.shuffle(
            BUFFER_SIZE, order_keys[1, 0], reshuffle_each_iteration=False
        )
        return records.enumerate().map(
            lambda place, record: (record, tf.random.fold_in(keys[1], place))
        )

    return epochs.epoch_keys(seed, epoch).flat_map(epoch_records)
