"""The cost model: floating-point operations of a training step, counted.

How they are counted depends on the backend, see `benchmarks.engines`.
"""

import dataclasses
import gc
import time

from benchmarks.engines import engine


def operations_per_step(model, x, y, traces=1):
    """Operations of a training step, mean over the compiled steps.

    Args:
        model: Compiled `keras.Model` or `ESAMModel` that has trained a step.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.
        traces: Integer, how often each step is traced for its time.

    Returns:
        Tuple of the number of floating-point operations, and a list for each
        step of the CPU seconds of its traces: next to nothing on PyTorch, which
        traces none.
    """
    operations, times = 0.0, []
    plans = step_plans(model)
    # The first trace in a process takes longer, whatever is traced.
    engine.trace(model, plans[0][1], x, y)
    for share, plan in plans:
        times.append([])
        # As in `timeit`: what else lives in the process is not to count.
        gc.disable()
        for _ in range(traces):
            start = time.process_time()
            traced = engine.trace(model, plan, x, y)
            times[-1].append(time.process_time() - start)
        gc.enable()
        operations += share * engine.count_operations(traced)
    return operations, times


def largest_step(model):
    """The plan of the step that perturbs most."""
    plans = [plan for _, plan in step_plans(model)]
    if plans == [None]:
        return None
    subsets = model.subset_pool.subsets
    return max(plans, key=lambda p: (p.perturbs, len(subsets[p.subset_index])))


def step_plans(model):
    """Pairs of the share of a plan in the training, and the plan."""
    if not hasattr(model, "upcoming_step"):
        return [(1, None)]
    subsets = model.subset_pool.subsets
    if model.rho == 0:
        subsets = [()]
    plan = dataclasses.replace(model.upcoming_step, perturbs=model.rho != 0)
    between = dataclasses.replace(plan, perturbs=False, subset_index=0)
    share = 1 / model.interval
    plans = [(1 - share, between)] if model.interval > 1 else []
    return plans + [
        (
            share * subsets.count(subset) / len(subsets),
            dataclasses.replace(plan, subset_index=subsets.index(subset)),
        )
        for subset in dict.fromkeys(subsets)
    ]
