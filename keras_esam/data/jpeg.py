"""Converts the bytes of an image file to an image for the network.

Crops are float32 tensors of shape `(image_size, image_size, 3)`, 0 to 255.
"""

import tensorflow as tf

from keras_esam.data import epochs


def random_crop(contents, image_size, seed):
    """A random part, resized and in half of the cases mirrored.

    Of a JPEG only this part is decoded.
    """
    window_seed, flip_seed = tf.unstack(tf.random.split(seed))

    def from_jpeg():
        shape = tf.io.extract_jpeg_shape(contents)
        window = draw_window(shape, window_seed)
        return tf.image.decode_and_crop_jpeg(contents, window, channels=3)

    def from_other():
        image = decode(contents)
        window = draw_window(tf.shape(image), window_seed)
        return tf.image.crop_to_bounding_box(image, *tf.unstack(window))

    image = tf.cond(tf.io.is_jpeg(contents), from_jpeg, from_other)
    image = tf.image.resize(image, (image_size, image_size), antialias=True)
    image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    return tf.ensure_shape(image, (image_size, image_size, 3))


def draw_window(shape, seed):
    """Draws the Inception crop (Szegedy et al., 2015), as in torchvision: top,
    left, height and width, shape `(4,)`."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed,
        min_object_covered=0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], 0)


def centre_crop(contents, image_size):
    """The centre of an image whose shorter side is 256/224 of the crop."""
    image = decode(contents)
    shape = tf.shape(image)[:2]
    shorter = round(image_size * 256 / 224)
    size = shape * shorter // tf.reduce_min(shape)
    image = tf.image.resize(image, size, antialias=True)  # As Pillow does.
    top, left = tf.unstack((size - image_size) // 2)
    return tf.image.crop_to_bounding_box(
        image, top, left, image_size, image_size
    )


def decode(contents):
    """Decodes a file of any format that TensorFlow knows to RGB, uint8.

    Greyscale is repeated in the three channels. JPEGs in CMYK or YCCK, as
    Photoshop writes them with its marker, become RGB. Without the marker their
    values are taken as they are, not as inverted.
    """
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def find_broken(paths):
    """The first file that cannot be decoded, or `None`.

    TensorFlow's errors do not name the file, and within a pipeline they cannot
    be caught. Decoding an image takes a few ms of CPU time.
    """

    def height(path):
        return tf.shape(decode(tf.io.read_file(path)))[0]

    images = tf.data.Dataset.from_tensor_slices(paths)
    images = images.map(height, epochs.NUM_PARALLEL, deterministic=True)
    count = 0
    try:
        for _ in images:
            count += 1
    except tf.errors.InvalidArgumentError:
        return paths[count]
    return None
