"""What a training step does, known on the host before it runs.

Everything here is static in a compiled step; each plan has a compiled step of
its own.
"""

import dataclasses

import keras

from keras_esam import subsets

Stages = keras.optimizers.schedules.PiecewiseConstantDecay


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What one training step does.

    Args:
        perturbs: Boolean, whether the step is sharpness-aware. If not, it is
            one of the base optimizer.
        subset_index: Integer, index of the perturbed subset in its pool.
        beta: Float, the `beta` that the pool was made for.
        gamma: Float, fraction of the batch that is kept.
    """

    perturbs: bool
    subset_index: int = 0
    beta: float = 1.0
    gamma: float = 1.0


def plan_step(
    execution: int,
    step: int,
    beta: float | Stages,
    gamma: float | Stages,
    granularity: str,
    interval: int,
    seed: int,
) -> StepPlan:
    """Plans a training step.

    Args:
        execution: Integer, number of executions before, in the whole training.
        step: Integer, number of steps before, in the whole training.
        beta: Float, or its constant stages over the steps.
        gamma: Float, or its constant stages over the steps.
        granularity: `"depth"`, `"variable"` or `"weight"`.
        interval: Integer, every how many executions are sharpness-aware.
        seed: Integer, of the order of the subsets.

    Returns:
        A `StepPlan`.
    """
    beta, gamma = value_at(beta, step), value_at(gamma, step)
    if execution % interval:
        return StepPlan(False, beta=beta, gamma=gamma)
    index = subsets.subset_at(
        execution // interval, subsets.pool_size(beta, granularity), seed
    )
    return StepPlan(True, index, beta, gamma)


def value_at(value: float | Stages, step: int) -> float:
    """Value of a constant, or of a schedule in constant stages, at a step."""
    if not isinstance(value, Stages):
        return value
    passed = sum(bool(step > boundary) for boundary in value.boundaries)
    return float(value.values[passed])
