"""Benchmarks on PyTorch: operations of the convolutions and matrix products.

`torch.utils.flop_counter` counts them while a step runs. PyTorch merges none.
"""

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.batches import ShuffledBatches as shuffled_batches
from benchmarks.batches import repeated as make_data

__all__ = ["make_data", "shuffled_batches"]


def set_threads(number):
    """Sets the number of threads."""
    torch.set_num_threads(number)


def devices():
    """List of the names of the devices."""
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(i) for i in range(count)] or ["cpu"]


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated()


def trace(step, model, x, y):
    """A training step without arguments. Nothing is traced."""
    return functools.partial(step, (x, y))


def count_operations(step):
    """Runs a step once and counts its floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
