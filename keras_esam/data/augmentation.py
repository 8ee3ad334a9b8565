"""Crop, flip and Cutout of a whole batch of small images.

Drawing random numbers (`draw_*`) is separate from applying them.
"""

import tensorflow as tf

PADDING = 4
CUTOUT_PROBABILITY = 0.5  # As in the ESAM authors' code.


def draw_crops(batch_size, seed):
    """Draws where crops begin in the padded images, and which are mirrored.

    Rows and columns are int32 from 0 to 8. All have shape `(batch_size,)`.
    """
    corner_seed, flip_seed = tf.unstack(tf.random.split(seed))
    corners = tf.random.stateless_uniform(
        (2, batch_size), corner_seed, 0, 2 * PADDING + 1, "int32"
    )
    flips = tf.random.stateless_uniform((batch_size,), flip_seed) < 0.5
    return corners[0], corners[1], flips


def crop_and_flip(images, rows, columns, flips):
    """Crops images, `(batch_size, height, width, channels)`, after padding by 4
    black pixels, at the places of `draw_crops`; `(4, 4)` is no shift."""
    height, width = images.shape[1:3]
    sides = (PADDING, PADDING)
    padded = tf.pad(images, ((0, 0), sides, sides, (0, 0)))
    rows = rows[:, None] + tf.range(height)
    steps = tf.range(width)
    steps = tf.where(flips[:, None], width - 1 - steps, steps)
    columns = columns[:, None] + steps
    x = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(x, columns, axis=2, batch_dims=1)


def draw_cutouts(batch_size, shape, size, seed):
    """First rows and columns of Cutout's squares, int32, `(batch_size,)`.

    Squares may lie partly outside an image of `shape` (height, width). In half
    of the images they are completely outside.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    is_cut = (
        tf.random.stateless_uniform((batch_size,), seeds[0])
        < CUTOUT_PROBABILITY
    )
    first = -(size // 2)
    tops, lefts = (
        tf.random.stateless_uniform(
            (batch_size,), key, first, first + length, "int32"
        )
        for key, length in zip(seeds[1:], shape, strict=True)
    )
    return tf.where(is_cut, tops, shape[0]), lefts


def cut_out(images, tops, lefts, size):
    """Sets a square of each image to 0, the mean of standardised images."""

    def inside(first, length):
        distance = tf.range(length) - first[:, None]
        return (distance >= 0) & (distance < size)

    height, width = images.shape[1:3]
    rows, columns = inside(tops, height), inside(lefts, width)
    is_cut = rows[:, :, None] & columns[:, None, :]
    return tf.where(is_cut[..., None], tf.zeros((), images.dtype), images)
