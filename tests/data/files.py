"""Small data sets as files, for the tests of the pipelines."""

import io
import pathlib

import numpy as np
from PIL import Image


def write_cifar(folder, name="cifar10", num_train=60, num_test=20):
    """Writes a data set as tensorflow-datasets has it.

    Image number `i` is random but for its middle, of which all pixels are `i`
    in red: a crop has it too. Its label is `i % 10`.

    Returns:
        Dict of split to images, uint8 of shape `(n, 32, 32, 3)`.
    """
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    images, samples = {}, {}
    for split, count in (("train", num_train), ("test", num_test)):
        x = rng.integers(0, 256, (count, 32, 32, 3)).astype("uint8")
        x[:, 8:24, 8:24, 0] = np.arange(count)[:, None, None]
        images[split] = x
        samples[split] = [
            (i, {"image": image, "label": i % 10}) for i, image in enumerate(x)
        ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="3.0.2",
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets=samples,
        disable_shuffling=True,
    )
    return images


def write_imagenet(folder, num_train=12, num_val=5, file_format=None):
    """Writes `imagenet2012`: image number `i` is grey, `10 * i`, label `i`."""
    import tensorflow_datasets as tfds

    samples = {
        split: [
            (
                i,
                {
                    "image": np.full((40 + i, 50, 3), 10 * i, "uint8"),
                    "label": i,
                    "file_name": f"{i}.JPEG",
                },
            )
            for i in range(count)
        ]
        for split, count in (("train", num_train), ("validation", num_val))
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="imagenet2012",
        version="5.1.0",
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
                "file_name": tfds.features.Text(),
            }
        ),
        split_datasets=samples,
        disable_shuffling=True,
        file_format=file_format,
    )


def arrays_of(dataset):
    """All images and all labels."""
    batches = list(dataset.as_numpy_iterator())
    return [np.concatenate(part) for part in zip(*batches, strict=True)]


def photograph(height=60, width=80):
    """Smooth colours, different in each corner: `(height, width, 3)` uint8."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    channels = [columns, rows, 1 - columns * rows]
    return np.round(30 + 200 * np.stack(channels, -1)).astype("uint8")


def encoded(image, mode="RGB", kind="JPEG"):
    """Bytes of an image file in a mode of Pillow."""
    buffer = io.BytesIO()
    options = {"quality": 95} if kind == "JPEG" else {}
    Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write_tree(folder, files):
    """Writes files, a dict of a path within `folder` to bytes."""
    for name, contents in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
