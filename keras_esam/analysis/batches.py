"""Data as a list of batches of tensors."""

import keras
import numpy as np
from keras import ops

from keras_esam import arguments

# For arrays; data sets have their own batches.
BATCH_SIZE = 256


def read_batches(data) -> list[tuple]:
    """Reads all of the data once, as batches `(x, y, sample_weight)`.

    Args:
        data: Tuple `(x,)`, `(x, y)` or `(x, y, sample_weight)` of nested
            structures of arrays of shapes `(num_samples, d0, .. dN)`; or an
            iterable of batches, such as a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a list of such tuples.
    """
    if isinstance(data, tuple):
        data = _slices(data)
    elif isinstance(data, keras.utils.PyDataset):
        data = map(data.__getitem__, range(data.num_batches))
    elif not hasattr(data, "__iter__") or _is_arrays(data):
        kinds = "a tuple of arrays or an iterable of batches"
        raise arguments.type_error("data", kinds, data)
    batches = [batch for batch in map(read_batch, data) if num_samples(batch)]
    if not batches:
        raise ValueError("`data` must have samples. Received none.")
    return batches


def read_one_batch(batch) -> tuple:
    """Reads a user's batch, see `read_batch`. A data set is an error."""
    if not isinstance(batch, (tuple, list)):
        kinds = (
            "a tuple of arrays, `(x, y)` or `(x, y, sample_weight)`, for "
            "instance `next(iter(dataset))`"
        )
        raise arguments.type_error("batch", kinds, batch)
    batch = read_batch(batch)
    if not num_samples(batch):
        raise ValueError(
            "`batch` must have samples. "
            f"Received: batch={arguments.short(batch)}"
        )
    return batch


def read_batch(batch) -> tuple:
    """`(x, y, sample_weight)`, nested structures of tensors or `None`."""
    parts = keras.utils.unpack_x_y_sample_weight(batch)
    return keras.tree.map_structure(_to_tensor, parts)


def _is_arrays(data) -> bool:
    """Whether it is arrays, or a dict or list of them, and no batches."""
    first = data[0] if isinstance(data, list) and data else data
    return isinstance(data, dict) or hasattr(first, "shape")


def num_samples(batch) -> int:
    """Number of samples in a tuple `(x, y, sample_weight)`."""
    return int(_leaves(batch[0])[0].shape[0])


def _leaves(structure):
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _slices(arrays):
    size = num_samples(arrays)
    shapes = [tuple(leaf.shape) for leaf in _leaves(arrays)]
    if any(shape[:1] != (size,) for shape in shapes):
        raise ValueError(
            "The arrays of `data` must have the samples as their rows. Give an "
            "iterable of batches if they have different numbers of rows. "
            f"Received: arrays of shapes {shapes}"
        )
    for start in range(0, size, BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        yield keras.tree.map_structure(
            lambda array, rows=rows: array[rows], arrays, none_is_leaf=False
        )


def _to_tensor(leaf):
    # Tensors may be ragged or sparse.
    if leaf is None or ops.is_tensor(leaf):
        return leaf
    return ops.convert_to_tensor(np.asarray(leaf))
