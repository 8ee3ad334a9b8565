"""Trainings in several processes, each with its share of the cores.

Small networks do not keep many cores busy: on two cores, two trainings in
parallel take three quarters of the time that they take in turn.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

import tensorflow as tf


def num_cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def number_of_jobs(wanted: int | None, default: int) -> int:
    """Number of trainings at a time.

    Raises:
        ValueError: If it can't be as large as wanted.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"--jobs must be positive. Received: {wanted}")
    if not tf.config.list_physical_devices("GPU"):
        return wanted or min(default, num_cpus())
    if (wanted or 1) > 1:
        raise ValueError(
            "On a GPU there is one training at a time, which takes its memory. "
            f"Received: --jobs {wanted}"
        )
    return 1


def call_beside(
    function: Callable, values: Iterable, num_workers: int
) -> Iterator[None]:
    """Calls a function with each value in processes, and yields regularly.

    When one of the calls or the caller fails, all processes end and the error
    is raised.
    """
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        # Forked processes can't use TensorFlow after the first one has.
        multiprocessing.get_context("spawn"),
        _begin,
        (max(1, num_cpus() // num_workers),),
    )
    waiting = [pool.submit(function, value) for value in values]
    try:
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, 2.0, concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                future.result()
            yield
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(num_threads):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)


def _end_with_the_parent():
    """Ends a worker whose parent was killed; it would wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)
