"""Training with `fit` on JAX.

`fit` gives the step all state as arrays and takes the new state from it. A
stateless scope in the step holds that state. So the common step of all backends
reads and assigns variables as usual, and the function is pure.
"""

import contextlib

import jax
import keras

from keras_esam import own_calls
from keras_esam import step
from keras_esam.dispatcher import StepDispatcher
from keras_esam.trainers.base_model import BaseModel

STATE = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


class JAXDispatcher(StepDispatcher):
    """Runs one execution, `steps_per_execution` batches, of an iterator.

    `fit` calls it with the state and the iterator.

    Args:
        model: The `ESAMModel`.
    """

    def __init__(self, model):
        super().__init__(model)
        # The value of the progress that was last put in the state.
        self._progress = None
        self.prepare()

    def __call__(self, state, iterator):
        model = self._model
        progress = state[1][-1]
        is_known = progress is self._progress
        num_steps = 0

        def step(state, data):
            nonlocal num_steps
            result = self._run(plan, state, data)
            num_steps += 1
            return result

        try:
            self.prepare()
            # A callback may have frozen layers.
            if len(state[0]) != len(self._trainable_parts[0]):
                self.forget_if_layers_changed()
            # Otherwise it would be copied to the host, and wait for that.
            plan = self._begin(
                model._progress.values() if is_known else progress
            )
            logs, state = model._make_function(step)(state, iterator)
        except BaseException:  # A keyboard interrupt too.
            self._keep(state)
            raise
        self._count(num_steps)
        # From the host, so that the next call does not wait for this one.
        self._progress = self._new_progress(progress)
        state[1][-1] = self._progress
        return self._logs(plan, logs), state

    def run_by_hand(self, state, data):
        progress = state[1][-1]
        if isinstance(progress, jax.core.Tracer):
            raise ValueError(
                "`train_step(state, data)` does the step that is due, which is "
                "another one each time, so it can't be within `jax.jit`. "
                "Call `train_on_batch()`, which compiles, or give it the "
                "`plan` of the step. Received: plan=None"
            )
        plan = self._begin(progress)
        with own_calls.own_calls():
            logs, state = self._model._train_step(state, data, plan)
        self._count(num_steps=1)
        state[1][-1] = self._new_progress(progress)
        return self._logs(plan, logs), state

    def _new_progress(self, old):
        """Array of the progress, placed like the old one.

        Where JAX chose the device, it chooses again: a step is compiled again
        for an argument whose device is given.
        """
        sharding = old.sharding if old.committed else None
        return jax.device_put(self._model._progress.values(), sharding)

    def _make_function(self, plan, state, data):
        step = self._step(plan)
        model = self._model
        if model.run_eagerly or not model.jit_compile:
            return step
        shardings = None
        if keras.distribution.distribution() is not None:
            # Not the variables' sharding: `fit` has taken their values.
            shardings = (None, jax.tree.map(lambda a: a.sharding, state))
        return jax.jit(step, donate_argnums=0, out_shardings=shardings)

    def _keep(self, state):
        """Restores the model's state after an error before the step ran.

        `fit` has taken the values from the variables.
        """
        leaves = jax.tree.leaves(state)
        if not any(leaf.is_deleted() for leaf in leaves):
            self._model._jax_state = dict(zip(STATE, state, strict=True))


class JAXModel(BaseModel):
    """Part of `ESAMModel` on JAX."""

    _dispatcher = JAXDispatcher

    def train_step(self, state, data, plan=None):
        """One training step, see `keras_esam.step`.

        `fit` calls it. A training loop of your own may call it as well, as
        `train_step(state, data)`, not within `jax.jit`.

        Args:
            state: Tuple of four lists of arrays: values of the trainable, the
                non-trainable, the optimizer's and the metrics' variables.
            data: Batch: `x`, `(x, y)` or `(x, y, sample_weight)`.
            plan: Optional `StepPlan`, what the step does. Defaults to the step
                that is due, which is then counted.

        Returns:
            Tuple of the logs, metric name to scalar array, and the new state.
        """
        if plan is None and not own_calls.are_own():
            return self._own_dispatcher().run_by_hand(state, data)
        return self._train_step(state, data, plan or self._plan_step())

    def _train_step(self, state, data, plan):
        own_calls.count_step()
        with own_calls.own_calls():
            if plan.is_base_step:
                logs, state = keras.Model.train_step(self, state, data)
                return self._without_sharpness(logs), state
            variables = (
                self.trainable_variables,
                self.non_trainable_variables,
                self.optimizer.variables,
                self.metrics_variables,
            )
            pairs = [
                pair
                for group, values in zip(variables, state, strict=True)
                for pair in zip(group, values, strict=True)
            ]
            with keras.StatelessScope(pairs) as scope:
                logs = step.train_step(self, plan, data)
            state = tuple(
                [scope.get_current_value(variable) for variable in group]
                for group in variables
            )
            return logs, state

    def _sync_variables(self):
        self.jax_state_sync()

    def _read_progress(self):
        # While `fit` holds the values the variable has none, hence this error.
        # The copy here then equals what `fit` holds.
        with contextlib.suppress(TypeError):
            super()._read_progress()
