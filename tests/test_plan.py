import types

import keras
import pytest

from keras_esam import subsets
from keras_esam.method import Method
from keras_esam.plan import StepPlan
from keras_esam.plan import first_own_step
from keras_esam.plan import plan_step
from keras_esam.plan import value_at
from keras_esam.variables import Variables
from tests.networks import PAPER

Stages = keras.optimizers.schedules.PiecewiseConstantDecay
ORDER = tuple(range(20))


def plans(num_steps, **kwargs):
    method = Method(**{**PAPER, "granularity": "variable", **kwargs})
    return [
        plan_step(
            method,
            types.SimpleNamespace(num_executions=step, num_steps=step, seed=1),
            Variables(ORDER, count=len(ORDER)),
        )
        for step in range(num_steps)
    ]


def pool(beta, granularity="variable"):
    return subsets.make_pool(granularity, ORDER, beta, 1, len(ORDER))


def test_training_goes_through_the_pool():
    seen = plans(10)
    order = [pool(0.6).subsets.index(plan.subset) for plan in seen]
    assert order == [subsets.subset_at(i, 5, 1) for i in range(10)]
    assert len(set(seen)) == 5


def test_steps_before_the_start_share_one_plan_of_the_base_optimizer():
    (before,) = set(plans(3, start=3))
    method = Method(**PAPER, granularity="variable", start=3, rho=0)
    assert before == StepPlan(method)
    assert before.is_base_step and not before.takes_rows


@pytest.mark.parametrize("is_tensor", [False, True])
def test_stages_change_after_the_boundary_as_in_keras(is_tensor):
    boundaries = [3, 5]
    if is_tensor:
        boundaries = keras.ops.convert_to_tensor(boundaries)
    stages = Stages(boundaries, [1.0, 0.5, 0.75])
    for step in range(10):
        assert value_at(stages, step) == float(stages(step))
    assert [value_at(stages, step) for step in (3, 4, 5, 6)] == [
        1.0,
        0.5,
        0.5,
        0.75,
    ]


def test_stages_of_beta_have_pools_of_their_own():
    seen = plans(40, beta=Stages([9], [1.0, 0.5]))
    assert {plan.subset for plan in seen[:10]} == {ORDER}
    assert {plan.subset for plan in seen[10:]} == set(pool(0.5).subsets)


@pytest.mark.parametrize("granularity", subsets.GRANULARITIES)
@pytest.mark.parametrize("scale", ["horvitz_thompson", "authors"])
def test_subset_has_the_probabilities_of_its_variables(granularity, scale):
    for plan in plans(40, granularity=granularity, beta=0.13, scale=scale):
        expected = pool(0.13, granularity)
        assert plan.subset in expected.subsets
        assert plan.probabilities == tuple(
            0.13 if scale == "authors" else expected.probabilities[index]
            for index in plan.subset
        )


def test_gamma_1_selects_nothing_whatever_is_known_of_the_batch_size():
    """It is a tensor in a step that is compiled for batches of any size."""
    for gamma, is_selecting in ((1.0, False), (0.5, True)):
        plan = StepPlan(Method(gamma=gamma), gamma=gamma)
        for batch_size in (16, keras.ops.convert_to_tensor(16)):
            assert plan.selects(batch_size) == is_selecting


def test_variables_that_are_no_weights_are_overwritten():
    progress = types.SimpleNamespace(num_executions=0, num_steps=0, seed=1)
    variables = Variables((2, 0, 4), overwritten=(1, 3, 5), count=6)
    plan = plan_step(Method(beta=1), progress, variables)
    assert plan.subset == (0, 2, 4)
    assert plan.overwritten == (1, 3, 5)
    # Replicas need to know with the base optimizer too.
    base = plan_step(Method(rho=0), progress, variables)
    assert base.overwritten == (1, 3, 5)
    assert base.is_base_step


@pytest.mark.parametrize("start", [0, 3, 6, 9])
@pytest.mark.parametrize(
    "rho",
    [
        0.05,
        0.0,
        Stages([2, 7], [0.0, 0.05, 0.0]),
        Stages([2.5], [0.05, 0.0]),
        Stages([5], [0.0, 0.0]),
        Stages([2.5, 2.7], [0.0, 0.05, 0.0]),
    ],
    ids=["constant", "base", "middle", "begin", "never", "empty"],
)
def test_first_own_step_is_the_first_that_is_none_of_the_base_optimizer(
    start, rho
):
    own = [
        step
        for step, plan in enumerate(plans(12, rho=rho, start=start))
        if not plan.is_base_step
    ]
    method = Method(**PAPER, rho=rho, start=start)
    assert first_own_step(method) == (own or [float("inf")])[0]
