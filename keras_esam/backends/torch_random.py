"""The same random numbers in all passes of a step.

On PyTorch a Keras layer without a seed, such as `Dropout(0.5)`, draws from
PyTorch's global generators, whose state is no Keras variable.
"""

import contextlib
import threading

import torch


class _Step(threading.local):
    """States of the global generators in the step that this thread runs."""

    is_running = False


_step = _Step()


@contextlib.contextmanager
def random_numbers():
    """Context of a step, whose passes draw the same random numbers.

    Afterwards the generators continue from the first pass, or from the first
    pass of the last micro-batch.
    """
    _step.is_running = True
    _step.at_start = _step.before = generators()
    _step.after = None
    try:
        yield
    finally:
        _step.is_running = False
        set_generators(_step.before if _step.after is None else _step.after)


@contextlib.contextmanager
def replayed():
    """Context of a pass. Outside a step the generators stay as they were."""
    if _step.is_running:
        before = _step.before
        set_generators(before)
    else:
        before = generators()
    yield
    if not _step.is_running:
        set_generators(before)
    elif _step.after is None:
        _step.after = generators()


def begin_micro_batch(start):
    """See `defaults`. The first micro-batch draws what the step would; each
    later one continues from the micro-batch before it."""
    _step.before = _step.after if start else _step.at_start
    _step.after = None


def generators():
    on_gpu = None
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        on_gpu = torch.cuda.get_rng_state()
    return torch.get_rng_state(), on_gpu


def set_generators(states):
    on_cpu, on_gpu = states
    torch.set_rng_state(on_cpu)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu)
