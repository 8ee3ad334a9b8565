"""The cost model: counts the floating-point operations of a training step.

How they are counted depends on the backend, see `benchmarks.engines`.
"""

import collections
import functools
import gc
import time

from benchmarks.engines import engine


def operations_per_step(model, x, y, traces=1):
    """Mean operations of a training step over a round of the subsets.

    Args:
        model: Compiled model that has trained whole rounds of steps, or none.
            It is trained for a round.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.
        traces: Integer, how often each compiled step is traced for its time.

    Returns:
        Tuple of the number of floating-point operations, and for each compiled
        step a list of the CPU seconds of its traces: next to nothing on
        PyTorch, which traces nothing.
    """
    operations, times = 0.0, []
    plans = plans_of_a_round(model, x, y)
    # The first trace in a process takes longer, whatever is traced.
    engine.trace(step_of(model, next(iter(plans))), model, x, y)
    for plan, count in plans.items():
        step = step_of(model, plan)
        times.append([])
        # As in `timeit`: other objects in the process must not count.
        gc.disable()
        for _ in range(traces):
            start = time.process_time()
            traced = engine.trace(step, model, x, y)
            times[-1].append(time.process_time() - start)
        gc.enable()
        operations += count * engine.count_operations(traced)
    return operations / plans.total(), times


def steps_per_round(model, at_least=1):
    """Number of steps with every compiled step as often as in training."""
    period = getattr(model, "num_subsets", 1)
    return -(-at_least // period) * period


def plans_of_a_round(model, x, y):
    """`Counter` of the plans of the next steps; `None` for other models."""
    plans = collections.Counter()
    for _ in range(steps_per_round(model)):
        plans[getattr(model, "upcoming_step", None)] += 1
        model.train_on_batch(x, y)
    return plans


def step_of(model, plan):
    """The model's `train_step`, which follows the plan if there is one."""
    more = {} if plan is None else {"plan": plan}
    return functools.partial(model.train_step, **more)
