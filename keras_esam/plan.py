"""What a training step does, known on the host before it runs.

Everything here is static in a compiled step: each plan has its own compiled
step. A new way to vary training over its steps is a line in `plan_step`.
"""

import dataclasses
import math

from keras_esam import arguments
from keras_esam import selection
from keras_esam import subsets
from keras_esam.method import Method
from keras_esam.variables import Variables


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What one training step does.

    Args:
        method: The `Method` that it belongs to.
        beta: Float, `beta` of the step's stage.
        gamma: Float, fraction of the batch that is kept.
        subset: Tuple of integers, indices of the perturbed variables among the
            `trainable_variables`.
        probabilities: Tuple of floats, the probability with which SWP perturbs
            each variable of the subset.
        overwritten: Tuple of integers, indices of the `trainable_variables`
            that are no weights; their gradients are their new values.
    """

    method: Method
    beta: float = 1.0
    gamma: float = 1.0
    subset: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    overwritten: tuple[int, ...] = ()

    @property
    def is_base_step(self) -> bool:
        """Whether Keras' own training step does the same."""
        if self.method.is_base_optimizer:
            return True
        return not self.subset and self.gamma == 1

    @property
    def knows_increase(self) -> bool:
        """Whether the step knows how much the losses increase."""
        return not self.is_base_step and self.method.knows_increase(self.gamma)

    @property
    def takes_rows(self) -> bool:
        """Whether the step takes only some rows of a batch."""
        method = self.method
        has_parts = min(self.gamma, method.clean_fraction) < 1
        has_parts = has_parts or method.micro_batch_size is not None
        return has_parts and not self.is_base_step

    @property
    def mask_probability(self) -> float | None:
        """Probability that a scalar weight is perturbed, `None` unless scalars
        are drawn."""
        by_scalar = self.method.subset_rule.by_scalar and self.beta < 1
        return self.beta if by_scalar else None

    def ascent_rows(self, batch_size):
        """Indices of the samples whose gradient defines the perturbation, or
        `None` for all."""
        fraction = self.method.clean_fraction
        if fraction == 1:
            return None
        count = selection.num_selected(batch_size, fraction)
        count = selection.rounded_to_even(count, batch_size)
        return selection.spread(batch_size, count)

    def num_kept(self, batch_size):
        """Number of samples that the step keeps: integer or scalar tensor."""
        return selection.num_selected(batch_size, self.gamma)

    def selects(self, batch_size) -> bool:
        """Whether the step drops samples; true if tracing can't tell."""
        if self.gamma == 1:
            return False
        is_known = isinstance(batch_size, int)
        return not is_known or self.num_kept(batch_size) < batch_size

    def has_micro_batches(self, batch_size) -> bool:
        """Whether there are several; true if tracing can't tell."""
        size = self.method.micro_batch_size
        if size is None:
            return False
        return not isinstance(batch_size, int) or batch_size > size


def plan_step(method: Method, progress, variables: Variables) -> StepPlan:
    """Plans the training step that is due.

    Args:
        method: `Method`.
        progress: `TrainingProgress`, the place in the whole training.
        variables: `Variables` of the model.
    """
    step = progress.num_steps
    rho = 0.0 if step < method.start else value_at(method.rho, step)
    if rho is not method.rho:
        method = dataclasses.replace(method, rho=rho)
    if method.is_base_optimizer:
        return StepPlan(method, overwritten=variables.overwritten)
    plan = StepPlan(
        method,
        beta=value_at(method.beta, step),
        gamma=value_at(method.gamma, step),
        overwritten=variables.overwritten,
    )
    pool = pool_of(method, plan.beta, progress.seed, variables)
    subset = pool.subsets[
        subsets.subset_at(
            progress.num_executions, len(pool.subsets), progress.seed
        )
    ]
    probabilities = [pool.probabilities[index] for index in subset]
    if method.scale == "authors":
        probabilities = [plan.beta] * len(subset)
    return dataclasses.replace(
        plan, subset=subset, probabilities=tuple(probabilities)
    )


def pool_of(
    method: Method, beta: float, seed: int, variables: Variables
) -> subsets.SubsetPool:
    """The subsets that training goes through, see `subsets.make_pool`."""
    return subsets.make_pool(
        method.granularity,
        variables.order,
        beta,
        seed,
        variables.count,
        method.preferred_pool_size,
    )


def first_own_step(method: Method) -> float:
    """Number of the first step that is not one of the base optimizer, `inf` if
    there is none."""
    if method.is_base_optimizer:
        return math.inf
    if not arguments.is_stages(method.rho):
        return method.start
    ends = [math.floor(float(b)) + 1 for b in method.rho.boundaries]
    own = [
        step
        for step in (method.start, *ends)
        if step >= method.start and value_at(method.rho, step) > 0
    ]
    return min(own, default=math.inf)


def value_at(value, step: int):
    """Value of constant stages at a step; other values as they are."""
    if not arguments.is_stages(value):
        return value
    passed = sum(bool(step > boundary) for boundary in value.boundaries)
    return float(value.values[passed])
