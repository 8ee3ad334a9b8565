"""Decoding and resizing, against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_esam.data import jpeg
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_tree

# Levels out of 255: JPEG loses some, and the decoders round differently.
LARGEST, MEAN = 10, 1.5


def by_pillow(contents):
    return np.array(Image.open(io.BytesIO(contents)).convert("RGB"))


def assert_close(result, expected):
    difference = np.abs(np.array(result, "float64") - expected)
    assert difference.max() <= LARGEST and difference.mean() <= MEAN


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
    ],
)
def test_colours_of_every_kind_of_file(mode, kind):
    contents = encoded(photograph(), mode, kind)
    image = jpeg.decode(contents)
    assert image.dtype == tf.uint8
    assert_close(image, by_pillow(contents))
    if mode in ("RGB", "CMYK"):
        assert_close(image, photograph())
    # The crop decodes in another way.
    seed = (1, 2)
    top, left, height, width = jpeg.draw_window(
        (60, 80, 3), tf.random.split(seed)[0]
    ).numpy()
    expected = Image.fromarray(by_pillow(contents)).resize(
        (32, 32), Image.BILINEAR, (left, top, left + width, top + height)
    )
    result = np.array(jpeg.random_crop(contents, 32, seed))
    flipped = np.array(expected)[:, ::-1]
    better = min(
        (np.array(expected), flipped), key=lambda e: np.abs(e - result).mean()
    )
    assert_close(result, better)


def test_photoshop_writes_ycck():
    """CMYK whose first three channels are YCC, which its marker says."""
    contents = encoded(photograph(), "CMYK")
    marker = contents.index(b"Adobe") + 11
    assert contents[marker] == 0
    contents = contents[:marker] + b"\2" + contents[marker + 1 :]
    assert_close(jpeg.decode(contents), by_pillow(contents))
    window = (5, 7, 40, 50)
    crop = tf.image.decode_and_crop_jpeg(contents, window, channels=3)
    assert_close(crop, by_pillow(contents)[5:45, 7:57])


def test_crops_are_within_the_image_and_as_large_as_they_should_be():
    height, width = 300, 400
    windows = np.array(
        [jpeg.draw_window((height, width, 3), (1, seed)) for seed in range(200)]
    )
    top, left, rows, columns = windows.T
    assert np.all(windows >= 0)
    assert np.all(top + rows <= height) and np.all(left + columns <= width)
    area = rows * columns / (height * width)
    aspect = columns / rows
    assert area.min() > 0.079 and area.max() <= 1
    assert area.min() < 0.2 and area.max() > 0.8
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    assert aspect.min() < 0.8 and aspect.max() > 1.25


def test_half_of_the_crops_are_mirrored():
    """The photograph's red grows from left to right."""
    contents = encoded(photograph())
    grows = []
    for seed in range(100):
        red = jpeg.random_crop(contents, 16, (3, seed))[..., 0].numpy()
        grows.append(red[:, -1].mean() > red[:, 0].mean())
    assert 30 < sum(grows) < 70


@pytest.mark.parametrize("shape", [(256, 300), (400, 256), (256, 256)])
def test_centre_needs_no_resizing(shape):
    """The shorter side of the file is what it would be resized to."""
    image = photograph(*shape)
    result = jpeg.centre_crop(encoded(image, kind="PNG"), 224)
    top, left = (shape[0] - 224) // 2, (shape[1] - 224) // 2
    expected = image[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("shape", [(64, 96), (100, 64), (20, 30)])
def test_centre_crop_equals_pillow(shape):
    """The shorter side becomes 32 for a crop of 28, smaller or larger."""
    image = photograph(*shape)
    result = jpeg.centre_crop(encoded(image, kind="PNG"), 28)
    height, width = (side * 32 // min(shape) for side in shape)
    resized = Image.fromarray(image).resize((width, height), Image.BILINEAR)
    top, left = (height - 28) // 2, (width - 28) // 2
    expected = np.array(resized, "int32")[top : top + 28, left : left + 28]
    assert np.abs(result - expected).max() <= 1  # Pillow rounds twice


def test_broken_file_is_found(tmp_path):
    contents = encoded(photograph())
    files = {f"{i}.jpg": contents for i in range(9)}
    write_tree(tmp_path, files)
    paths = [str(tmp_path / name) for name in files]
    assert jpeg.find_broken(paths) is None
    for broken in (contents[: len(contents) // 2], b"no image", b""):
        write_tree(tmp_path, {"6.jpg": broken, "7.jpg": b""})
        assert jpeg.find_broken(paths) == paths[6]
