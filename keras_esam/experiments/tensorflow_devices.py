"""What the experiments ask TensorFlow, which reads their data in any case."""

import tensorflow as tf


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def limit_threads(num_threads: int):
    """Sets how many threads TensorFlow uses. It must not have begun."""
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)
