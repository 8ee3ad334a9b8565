"""The training step of ESAM with `jax.grad`.

`fit` gives the step all state as arrays and takes the new state from it. Within
it a stateless scope holds that state, so that the step common to all backends
reads and assigns variables as it does elsewhere, and the function is pure.
"""

import contextlib

import jax
import keras
from jax.experimental import sparse

from keras_esam.trainers import own_calls
from keras_esam.trainers import passes
from keras_esam.trainers.esam_step import ESAMStep
from keras_esam.trainers.jax_dispatcher import JAXDispatcher


class JAXTrainer(ESAMStep):
    """Training step and train function of `ESAMModel` on JAX."""

    _dispatcher = JAXDispatcher

    @own_calls.own_calls()
    def train_step(self, state, data):
        """One training step, see `keras_esam.trainers.esam_step`.

        Args:
            state: Tuple of four lists of arrays: values of the trainable, the
                non-trainable, the optimizer's and the metrics' variables.
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Tuple of the logs, metric name to scalar array, and the new state.
        """
        plan = self._plan()
        if self._needs_no_perturbation(plan):
            logs, state = super().train_step(state, data)
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
            logs = self._esam_step(data, plan)
        state = tuple(
            [scope.get_current_value(variable) for variable in group]
            for group in variables
        )
        return logs, state

    def _sync_variables(self):
        self.jax_state_sync()

    def _read_progress(self):
        # While `fit` holds the values the variable has none, which is this
        # error, and what is known here is what `fit` holds.
        with contextlib.suppress(TypeError):
            super()._read_progress()

    def _gradients(self, batch, weights, state, sources, valid=None, **kwargs):
        assigned = []

        def loss_at(values):
            perturbed = list(weights)
            for index, value in zip(sources, values, strict=True):
                perturbed[index] = value
            result = passes.forward(self, batch, perturbed, state, **kwargs)
            assigned[:] = [variable for variable, _ in result.updates]
            new_values = [value for _, value in result.updates]
            outputs = (result.y_pred, result.loss, result.sample_losses)
            loss = passes.scaled_loss(self, result.loss, valid)
            return loss, (*outputs, result.weights, new_values)

        gradients, (*outputs, new_values) = jax.grad(loss_at, has_aux=True)(
            [weights[index] for index in sources]
        )
        updates = list(zip(assigned, new_values, strict=True))
        return passes.ForwardPass(*outputs, updates), gradients

    def _apply_gradients(self, gradients):
        optimizer = self.optimizer
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            super()._apply_gradients(gradients)
            return
        # It assigns within conditionals, which only this method of it avoids.
        weights = self.trainable_variables
        values, optimizer_values = optimizer.stateless_apply(
            [variable.value for variable in optimizer.variables],
            gradients,
            [variable.value for variable in weights],
        )
        for variable, value in zip(
            [*weights, *optimizer.variables],
            [*values, *optimizer_values],
            strict=True,
        ):
            variable.assign(value)

    @staticmethod
    def _take(tensor, indices):
        if isinstance(tensor, sparse.BCOO):
            return tensor[indices]
        return ESAMStep._take(tensor, indices)

    @staticmethod
    def _value(variable):
        return variable.value
