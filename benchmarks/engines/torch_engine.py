"""Benchmarks on PyTorch: operations of the convolutions and matrix products.

`torch.utils.flop_counter` counts those of a step as it runs. PyTorch merges
none.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engines.repeated import RepeatedBatch as make_data

__all__ = ["make_data"]


def devices():
    """List of the names of the devices."""
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(i) for i in range(count)] or ["cpu"]


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated()


def keep_compiled(folder):
    """Does nothing: nothing is compiled."""


def compiled_memory(model, plan, x, y):
    """`None`: nothing is compiled."""


def trace(model, plan, x, y):
    """The training step of a plan, to be run.

    Args:
        model: Compiled `keras.Model` or `ESAMModel` that has trained a step.
        plan: `StepPlan`, or `None` for a `keras.Model`.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.

    Returns:
        Function without arguments.
    """

    def step():
        model._traced_plan = plan
        try:
            model.train_step((x, y))
        finally:
            model._traced_plan = None

    return step


def count_operations(step):
    """Floating-point operations of a step, which is run once."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
