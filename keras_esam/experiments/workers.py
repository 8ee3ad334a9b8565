"""Trainings in several processes, each with its share of the cores.

Small networks do not keep many cores busy: on two cores two trainings beside
each other take three quarters of the time that they take in turn.
"""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable
from collections.abc import Iterator


def each_done(function: Callable, work: dict, num_workers: int) -> Iterator:
    """Calls a function in several processes.

    Args:
        function: Function of a value of `work`, which can be pickled.
        work: Dict of name to value.
        num_workers: Integer, number of processes.

    Yields:
        The names, each when it is done.

    Raises:
        Exception: What a call raised. Those that have not begun are left out.
    """
    threads = max(1, os.cpu_count() // num_workers)
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        # Forked processes can't use TensorFlow, where the first one has.
        multiprocessing.get_context("spawn"),
        _begin,
        (threads,),
    )
    try:
        names = {pool.submit(function, work[name]): name for name in work}
        for future in concurrent.futures.as_completed(names):
            future.result()
            yield names[future]
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads):
    import tensorflow as tf

    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _end_with_the_parent():
    """Otherwise the worker of a killed process would go on and wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)
