"""A switch of TensorFlow that is on in some threads only.

`tf.config.run_functions_eagerly` is for the whole process. While one model is
traced, the compiled steps of those that train in other threads, plain Keras
models too, would run as Python. So what TensorFlow keeps the setting in, its
private `eager_function_run.RUN_FUNCTIONS_EAGERLY`, gets a value that is true in
the threads alone that ask for it.
"""

import contextlib
import threading

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import eager_function_run


class _Switch(threading.local):
    """True within the context in this thread, elsewhere what it was before."""

    lock = threading.Lock()
    num_threads = 0
    before = False

    # Of each thread, how many contexts it is in.
    depth = 0

    def __bool__(self):
        return self.depth > 0 or _Switch.before


_switch = _Switch()


@contextlib.contextmanager
def functions_in_place():
    """Context in which a `tf.function` runs as the Python function it wraps.

    The replicas of a strategy pass through here in threads that take turns, so
    only the last one out turns it back.
    """
    with _Switch.lock:
        if _Switch.num_threads == 0:
            _Switch.before = bool(tf.config.functions_run_eagerly())
            eager_function_run.RUN_FUNCTIONS_EAGERLY = _switch
        _Switch.num_threads += 1
    _switch.depth += 1
    try:
        yield
    finally:
        _switch.depth -= 1
        with _Switch.lock:
            _Switch.num_threads -= 1
            if _Switch.num_threads == 0:
                tf.config.run_functions_eagerly(_Switch.before)
