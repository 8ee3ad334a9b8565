"""Benchmarks on JAX: operations by the cost analysis of the compiler.

It counts the operations of the compiled step, elementwise ones too, after equal
operations are merged and unused ones dropped.
"""

import jax

from benchmarks.batches import ShuffledBatches as shuffled_batches
from benchmarks.batches import repeated as make_data

__all__ = ["make_data", "shuffled_batches"]


def set_threads(number):
    """Does nothing: use `taskset` on JAX."""


def devices():
    """List of the names of the devices."""
    return [f"{d.platform}: {d.device_kind}" for d in jax.devices()]


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    statistics = jax.devices()[0].memory_stats()
    return statistics and statistics["peak_bytes_in_use"]


def trace(step, model, x, y):
    """A training step, traced and lowered for the CPU.

    On a GPU, operations in calls of cuDNN and cuBLAS would not be counted.
    """
    state = tuple(
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    with jax.default_device(jax.devices("cpu")[0]):
        # A new function, so that nothing is found in JAX's cache.
        jitted = jax.jit(
            lambda state, data: step(state, data), donate_argnums=0
        )
        return jitted.lower(state, (x, y))


def count_operations(lowered):
    """Compiles a lowered step and counts its floating-point operations."""
    return lowered.compile().cost_analysis()["flops"]
