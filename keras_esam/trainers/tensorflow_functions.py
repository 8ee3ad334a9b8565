"""What TensorFlow does, and says, when it traces a `tf.function`.

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


@contextlib.contextmanager
def no_retracing_warning():
    """TensorFlow takes functions of one origin for retraces of one function.

    As the steps of the subsets, or the mean losses of several models. Its
    advice, to make fewer of them, would be wrong here.
    """

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def without_first_warning(function):
    """A function whose first call traces in `no_retracing_warning()`.

    TensorFlow counts the traces of a new test function with those of the train
    functions before, which come from the same lines of Keras. Later traces are
    retraces, of which it warns.
    """
    contexts = iter([no_retracing_warning()])

    def call(*args):
        with next(contexts, contextlib.nullcontext()):
            return function(*args)

    return call
