"""What a user is told of batches that can not be taken apart."""

import contextlib

# Python's, and PyTorch's, of an index out of range or a wrong shape.
SHAPE_ERRORS = (ValueError, TypeError, IndexError, RuntimeError)

UNEQUAL_ROWS = (
    "All tensors of a batch must have the samples as their rows for SDS "
    "(`gamma < 1`) and for micro-batches, which take some of the rows. Use "
    "`gamma=1` and `micro_batch_size=None`."
)

NOTE = (
    "This step takes a part of a batch: SDS (`gamma < 1`) or "
    "`micro_batch_size`. A network, loss or target that is about a batch as a "
    "whole, as places in the batch are, and tensors with different numbers of "
    "rows need `gamma=1` and `micro_batch_size=None`."
)


@contextlib.contextmanager
def explained(errors=SHAPE_ERRORS):
    """Context of passes over a part of a batch, whose errors say that.

    Args:
        errors: Exception classes that it may be the cause of. Defaults to
            `SHAPE_ERRORS`.
    """
    try:
        yield
    except errors as error:
        known = getattr(error, "__notes__", [])
        if NOTE not in known and "`gamma" not in str(error):
            error.add_note(NOTE)
        raise
