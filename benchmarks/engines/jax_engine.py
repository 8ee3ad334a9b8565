"""Benchmarks on JAX: operations by the cost analysis of the compiler.

It counts the operations of the compiled step, elementwise ones too, after equal
ones are merged and unused ones are dropped.
"""

import jax

from benchmarks.engines.repeated import RepeatedBatch as make_data

__all__ = ["make_data"]


def devices():
    """List of the names of the devices."""
    return [f"{d.platform}: {d.device_kind}" for d in jax.devices()]


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    statistics = jax.devices()[0].memory_stats()
    return statistics and statistics["peak_bytes_in_use"]


def keep_compiled(folder):
    """Keeps what is compiled in a folder, for later processes too."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def trace(model, plan, x, y):
    """The training step of a plan, traced, and lowered for the CPU.

    What a GPU's step has in calls of cuDNN and cuBLAS is not counted.

    Args:
        model: Compiled `keras.Model` or `ESAMModel` that has trained a step.
        plan: `StepPlan`, or `None` for a `keras.Model`.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.

    Returns:
        `jax.stages.Lowered`.
    """
    with jax.default_device(jax.devices("cpu")[0]):
        return _lower(model, plan, x, y)


def compiled_memory(model, plan, x, y):
    """Bytes that the compiled step takes on its device, by the compiler.

    Unlike the peak these have no scratch space of autotuning. Arguments as in
    `trace`.
    """
    memory = _lower(model, plan, x, y).compile().memory_analysis()
    arguments = memory.argument_size_in_bytes - memory.alias_size_in_bytes
    return arguments + memory.output_size_in_bytes + memory.temp_size_in_bytes


def _lower(model, plan, x, y):
    state = tuple(
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
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
        step = jax.jit(
            lambda state, data: model.train_step(state, data), donate_argnums=0
        )
        return step.lower(state, (x, y))
    finally:
        model._traced_plan = None


def count_operations(lowered):
    """Floating-point operations of a lowered step, once it is compiled."""
    return lowered.compile().cost_analysis()["flops"]
