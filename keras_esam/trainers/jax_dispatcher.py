"""The train function of `fit` on JAX."""

import jax
import keras

from keras_esam.trainers.dispatcher import StepDispatcher

STATE = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


class JAXDispatcher(StepDispatcher):
    """Is called by `fit` with the state and an iterator and runs one execution,
    `steps_per_execution` batches of it.

    Args:
        model: The `ESAMModel`.
    """

    def __init__(self, model):
        super().__init__(model)
        # The value of the progress that was put in the state last.
        self._progress = None
        self._prepare()

    def __call__(self, state, iterator):
        model = self._model
        progress = state[1][-1]
        is_known = progress is self._progress
        # Or it is copied to the host, for which it waits.
        plan = self._begin(model._progress.values() if is_known else progress)
        num_steps = 0

        def step(state, data):
            nonlocal num_steps
            result = self._run(plan, state, data)
            num_steps += 1
            return result

        try:
            self._check_layers(state)
            logs, state = model._make_function(step)(state, iterator)
        except BaseException:  # As of a keyboard interrupt.
            self._keep(state)
            raise
        self._count(num_steps)
        # From the host, so that the next call does not wait for this one.
        self._progress = jax.device_put(
            model._progress.values(), progress.sharding
        )
        state[1][-1] = self._progress
        return self._logs(plan, logs), state

    def _check_layers(self, state):
        """Drops the compiled steps if a callback has frozen layers."""
        trainable, _ = self._trainable
        if len(state[0]) == len(trainable):
            return
        if self._model.ascent == "previous":
            raise ValueError(
                'With `ascent="previous"` on JAX layers must not be frozen or '
                "unfrozen while `fit` runs, which holds the gradients of the "
                f"{len(trainable)} weights that were trainable when it began. "
                f"Received: {len(state[0])} trainable weights"
            )
        self.forget_if_layers_changed()

    def _make_function(self, plan, state, data):
        step = self._step(plan)
        model = self._model
        if model.run_eagerly or not model.jit_compile:
            return step
        shardings = None
        if keras.distribution.distribution() is not None:
            # Not that of the variables, whose values `fit` has taken.
            shardings = (None, jax.tree.map(lambda a: a.sharding, state))
        return jax.jit(step, donate_argnums=0, out_shardings=shardings)

    def _keep(self, state):
        """Gives the model its state back after an error before the step ran.

        `fit` has taken the values from the variables.
        """
        leaves = jax.tree.leaves(state)
        if not any(leaf.is_deleted() for leaf in leaves):
            self._model._jax_state = dict(zip(STATE, state, strict=True))
