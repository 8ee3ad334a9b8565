"""Warns when an `ESAMModel` is trained from outside its own steps.

A `keras.distillation.Distiller`, a model around an `ESAMModel`, or a custom
loop may call it in training mode and train it without a sharpness-aware step.
The call can't know what its outputs are for. So the first call in training mode
from outside the model's own steps gives a warning.
"""

import contextlib
import inspect
import threading
import warnings

import keras

LIBRARIES = ("keras", "keras_esam", "tensorflow", "jax", "torch")


class _Calls(threading.local):
    """Own steps and passes that this thread runs.

    Attributes:
        are_own: Boolean, whether it runs one of our steps or passes.
        num_steps: Integer, number of our training steps that began in the
            innermost context.
    """

    are_own = False
    num_steps = 0


_calls = _Calls()


@contextlib.contextmanager
def own_calls():
    """Context or decorator for code that may call a model in training mode."""
    before = _calls.are_own, _calls.num_steps
    _calls.are_own, _calls.num_steps = True, 0
    try:
        yield _calls
    finally:
        _calls.are_own, _calls.num_steps = before


def are_own() -> bool:
    """Whether this thread runs one of our steps or passes."""
    return _calls.are_own


def count_step():
    """Counts the start of one of our training steps."""
    _calls.num_steps += 1


def is_foreign(training) -> bool:
    """Whether a call with this argument trains and comes from elsewhere."""
    return not (_calls.are_own or keras.ops.is_tensor(training)) and bool(
        training
    )


def warn(model):
    """Warns that a call of a model trains without sharpness-aware steps."""
    warnings.warn(
        f"`{model.name}` was called in training mode from outside the "
        "training step of its class. Weights that are trained in this way, by "
        "another model, a `Distiller`, a custom loop or a `train_step()` "
        "without `super().train_step()`, get no sharpness-aware step. "
        f"Train with `{model.name}.fit()`, or call the "
        "network in it, its attribute `model`, if that is what you want.",
        stacklevel=_level_of_caller(),
    )


def _level_of_caller() -> int:
    """`stacklevel` in `warn` of the user's line: the innermost one that is not
    in this package, Keras or its backend."""
    frame, level = inspect.currentframe().f_back, 1
    while frame.f_back and _package(frame) in LIBRARIES:
        frame, level = frame.f_back, level + 1
    return level


def _package(frame) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]
