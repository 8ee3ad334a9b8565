"""Parts of batches: rows, and the errors of networks that do not allow it."""

import contextlib

import keras

from keras_esam.backends import backend

# Errors of Python and PyTorch for an index out of range or a wrong shape.
SHAPE_ERRORS = (ValueError, TypeError, IndexError, RuntimeError)

UNEQUAL_ROWS = (
    "All tensors of a batch must have the samples as their rows for SDS "
    "(`gamma < 1`), `ascent_fraction < 1` and micro-batches, which take some "
    "of the rows. Use `gamma=1`, `ascent_fraction=1` and "
    "`micro_batch_size=None`."
)

NOTE = (
    "If this is about the number of samples: the step takes a part of a batch "
    "(SDS, `gamma < 1`, `ascent_fraction < 1` or `micro_batch_size`). A "
    "network, loss or target that depends on the whole batch, as places in "
    "the batch do, and tensors with different numbers of rows need "
    "`gamma=1`, `ascent_fraction=1` and `micro_batch_size=None`."
)


@contextlib.contextmanager
def explained(is_part=True, errors=SHAPE_ERRORS):
    """Context that adds a note to errors of passes over a part of a batch."""
    try:
        yield
    except errors as error:
        known = getattr(error, "__notes__", [])
        if is_part and NOTE not in known and "`gamma" not in str(error):
            error.add_note(NOTE)
        raise


def check(batch):
    """Checks a batch `(x, y, sample_weight)` from which rows are taken.

    Raises:
        ValueError: If its tensors have different numbers of rows, as far as
            they are known in tracing.
    """
    leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    shapes = [tuple(leaf.shape) for leaf in leaves]
    counts = {shape[0] if shape else "none" for shape in shapes}
    if "none" in counts or len(counts - {None}) > 1:
        raise ValueError(f"{UNEQUAL_ROWS} Received: tensors of shapes {shapes}")
    count = backend.batch_size(batch)
    return keras.tree.map_structure(
        lambda leaf: backend.with_rows(leaf, count, UNEQUAL_ROWS),
        batch,
        none_is_leaf=False,
    )


def take(batch, indices):
    """The rows of every tensor in a nested structure.

    Args:
        batch: Nested structure of tensors, shapes `(batch_size, d0, .. dN)`.
            `None` stays `None`.
        indices: Integer tensor, shape `(count,)`, in ascending order; or `None`
            for all rows.

    Returns:
        The same structure of tensors, shapes `(count, d0, .. dN)`.
    """
    if indices is None:
        return batch
    return keras.tree.map_structure(
        lambda tensor: backend.take(tensor, indices), batch, none_is_leaf=False
    )
