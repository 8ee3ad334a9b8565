"""Trainings in several processes, each with its share of the cores.

Small networks do not keep many cores busy: on two cores two trainings beside
each other take three quarters of the time that they take in turn.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

from keras_esam.experiments import tensorflow_devices


def num_cpus() -> int:
    """Number of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def call_beside(
    function: Callable,
    values: Iterable,
    num_workers: int,
    interval: float = 2.0,
) -> Iterator[None]:
    """Calls a function of each value in several processes.

    When one of the calls or the caller fails, the others are killed, and those
    that have not begun are left out.

    Args:
        function: Function of one argument that can be pickled.
        values: Iterable of values that can be pickled.
        num_workers: Integer, number of processes.
        interval: Float, seconds.

    Yields:
        `None`, whenever a call has ended or the interval has passed, and at the
        end.

    Raises:
        Exception: What a call raised.
    """
    waiting = list(values)[::-1]
    running = set()
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        # Forked processes can't use TensorFlow, where the first one has.
        multiprocessing.get_context("spawn"),
        _begin,
        (max(1, num_cpus() // num_workers),),
    )
    try:
        while waiting or running:
            # No more of them, as the pool would begin them after an error.
            while waiting and len(running) < num_workers:
                running.add(pool.submit(function, waiting.pop()))
            ended, running = concurrent.futures.wait(
                running, interval, concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                future.result()
            yield
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _begin(num_threads):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it then.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    tensorflow_devices.limit_threads(num_threads)


def _end_with_the_parent():
    """Otherwise the worker of a killed process would go on and wait forever."""
    multiprocessing.parent_process().join()
    os._exit(1)
