import keras
import pytest

from keras_esam import subsets
from keras_esam.step_plan import StepPlan
from keras_esam.step_plan import plan_step
from keras_esam.step_plan import value_at

pytestmark = pytest.mark.usefixtures("all_subsets")

Stages = keras.optimizers.schedules.PiecewiseConstantDecay


def plans(num_steps, **kwargs):
    arguments = {
        "beta": 0.6,
        "gamma": 0.5,
        "granularity": "variable",
        "interval": 1,
        "seed": 1,
        **kwargs,
    }
    return [plan_step(step, step, **arguments) for step in range(num_steps)]


def test_every_third_step_is_sharpness_aware_and_goes_through_the_pool():
    seen = plans(30, interval=3)
    assert [plan.perturbs for plan in seen] == [True, False, False] * 10
    order = [plan.subset_index for plan in seen[::3]]
    assert order == [subsets.subset_at(i, 5, 1) for i in range(10)]
    assert len(set(seen)) == 6  # five subsets and the base optimizer


def test_steps_in_between_share_one_plan():
    between = {plan for plan in plans(30, interval=3) if not plan.perturbs}
    assert between == {StepPlan(False, beta=0.6, gamma=0.5)}


def test_stages_change_after_the_boundary_as_in_keras():
    stages = Stages([3, 5], [1.0, 0.5, 0.75])
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
    assert {plan.subset_index for plan in seen[:10]} == {0}
    assert {plan.subset_index for plan in seen[10:]} == {0, 1, 2, 3}


@pytest.mark.parametrize("granularity", subsets.GRANULARITIES)
def test_index_is_one_of_the_pool(granularity):
    for plan in plans(40, granularity=granularity, beta=0.13):
        pool = subsets.make_pool(granularity, tuple(range(20)), plan.beta, 1)
        assert plan.subset_index < len(pool.subsets)
