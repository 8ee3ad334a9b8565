"""Benchmarks on JAX: operations by the cost analysis of the compiler.

It counts the operations of the compiled step, elementwise ones too, after equal
ones are merged and unused ones are dropped.
"""

import jax

from benchmarks.engines.repeated import RepeatedBatch as make_data

__all__ = ["make_data"]


def describe():
    """Dict of the versions and the devices."""
    devices = [f"{d.platform}: {d.device_kind}" for d in jax.devices()]
    return {"jax": jax.__version__, "devices": devices}


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    statistics = jax.devices()[0].memory_stats()
    return statistics and statistics["peak_bytes_in_use"]


def trace(model, plan, x, y):
    """The training step of a plan, traced and lowered.

    Args:
        model: Compiled `keras.Model` or `ESAMModel` that has trained a step.
        plan: `StepPlan`, or `None` for a `keras.Model`.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.

    Returns:
        `jax.stages.Lowered`.
    """
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    model._traced_plan = plan
    try:
        # A function of its own, so that nothing is found in JAX's cache.
        step = jax.jit(lambda state, data: model.train_step(state, data))
        return step.lower(state, (x, y))
    finally:
        model._traced_plan = None


def count_operations(lowered):
    """Floating-point operations of a lowered step, once it is compiled."""
    return lowered.compile().cost_analysis()["flops"]
