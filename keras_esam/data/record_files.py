"""ImageNet-1k as tensorflow-datasets keeps it."""

import tensorflow as tf

from keras_esam.data import epochs
from keras_esam.data.prepared import prepared_builder

SPLITS = {"train": "train", "val": "validation"}
NUM_OPEN_FILES = 16
BUFFER_SIZE = 4096  # Photographs of 110 kB on average.


def record_files(split, data_dir, seed, epoch, num_samples=None):
    """Undecoded images of `imagenet2012`.

    For training the files are shuffled, then the images within a buffer.

    Args:
        split: String, `"train"` or `"val"`.
        data_dir: See `prepared_builder`.
        seed: Integer, or `None` for the order of the files.
        epoch: See `epochs.epoch_keys`.
        num_samples: Optional integer, only the first ones.

    Returns:
        A `tf.data.Dataset` of known length. Its elements are the bytes of an
        image, its label, int32, and with a seed that of the element, int64 of
        shape `(2,)`.
    """
    builder = prepared_builder("imagenet2012", data_dir)
    info = builder.info.splits[SPLITS[split]]
    kind = builder.info.file_format.value
    if kind != "tfrecord":
        raise ValueError(
            "`data_dir` must have `imagenet2012` in TFRecord files. Prepare it "
            f'with `file_format="tfrecord"`. Received: data_dir={data_dir!r} '
            f"with files of format {kind!r}"
        )
    count = info.num_examples if num_samples is None else num_samples
    if count > info.num_examples:
        raise ValueError(
            f"`num_samples` must be at most {info.num_examples}. "
            f"Received: num_samples={num_samples}"
        )
    parts = builder.info.splits[f"{SPLITS[split]}[:{count}]"].file_instructions
    files = [str(part.filename) for part in parts]
    sizes = [part.take for part in parts]
    if seed is None:
        records = tf.data.TFRecordDataset(files).take(count)
    else:
        records = _shuffled(files, sizes, seed, epoch)
    cardinality = tf.data.experimental.assert_cardinality(count)
    parse = _parser(builder.info.features)
    return records.apply(cardinality).map(parse, epochs.NUM_PARALLEL)


def _shuffled(files, sizes, seed, epoch):
    """Data set of records and seeds: of each file the first `size` records."""
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
        # `shuffle` mixes the global seed into its own: here that of the graph
        # of this function, and not 0, with which it takes no tensor.
        tf.random.set_seed(1)
        records = records.shuffle(
            BUFFER_SIZE, order_keys[1, 0], reshuffle_each_iteration=False
        )
        return records.enumerate().map(
            lambda place, record: (
                record,
                tf.random.fold_in(keys[1], place),
            )
        )

    return epochs.epoch_keys(seed, epoch).flat_map(epoch_records)


def _parser(features):
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(record, *seed):
        sample = features.deserialize_example(record, decoders=decoders)
        return sample["image"], tf.cast(sample["label"], "int32"), *seed

    return parse
