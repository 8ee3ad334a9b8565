"""One training step of ESAM with `tf.GradientTape`.

    F1  clean forward pass        metrics, BatchNormalization statistics, seeds
    B1  its gradient              of the perturbed variables alone
        ascent                    theta + eps, as tensors
    Fs  ranking forward pass      whole batch at theta + eps
        selection                 the samples whose loss rises the most
    F2  perturbed forward pass    selected samples at theta + eps
    B2  its gradient              of all variables, applied to theta

The variables are assigned at the end of the step only. Until then theta + eps
and all other state live in tensors, so nothing has to be restored, replicas can
not drift apart, and an error on the way leaves the model as it was. All passes
start from the same state and so use the same dropout masks.

The step is specialised to a static subset of the variables: a tape that watches
fewer tensors records fewer operations. `make_train_function` therefore gives
`fit` a function that picks one of several compiled steps on the host.
"""

import keras
import tensorflow as tf

from keras_esam import ascent
from keras_esam import selection
from keras_esam.trainers import tensorflow_gradients
from keras_esam.trainers import tensorflow_passes
from keras_esam.trainers.base_trainer import BaseTrainer
from keras_esam.trainers.tensorflow_dispatcher import SubsetDispatcher
from keras_esam.trainers.tensorflow_rows import batch_size
from keras_esam.trainers.tensorflow_rows import take


class TensorFlowTrainer(BaseTrainer):
    """Training step and train function of `ESAMModel` on TensorFlow."""

    def make_train_function(self, force=False):
        """Creates the function that runs one execution of `fit`.

        Args:
            force: Boolean, whether to drop the compiled steps. Defaults to
                `False`.
        """
        if self.train_function is None or force:
            self.train_function = SubsetDispatcher(self)
            self._has_checked_gradients = False
            self._has_sample_losses = True
            self._variable_order = None
        elif isinstance(self.train_function, SubsetDispatcher):
            self.train_function.forget_if_weights_changed()

    def train_step(self, data):
        """One training step as in the module's docstring.

        Args:
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        plan = self._traced_plan
        if plan is None:
            raise ValueError(
                "`train_step()` is specialised to a subset of the variables "
                "and is to be called by `fit()` or `train_on_batch()` only."
            )
        if self._needs_no_perturbation(plan):
            return self._base_step(data, plan)
        batch = keras.utils.unpack_x_y_sample_weight(data)
        weights = [tf.convert_to_tensor(v) for v in self.trainable_variables]
        state = [
            (v, tf.convert_to_tensor(v)) for v in self.non_trainable_variables
        ]
        run = (
            self._two_gradients
            if self.ascent == "current"
            else self._one_gradient
        )
        observed, gradients, rise = run(batch, weights, state, plan)
        if not self._has_checked_gradients:
            tensorflow_gradients.check_gradients(self, batch, gradients)
            self._has_checked_gradients = True

        observed.scope.commit()
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        if self.ascent == "previous":
            self._gradient_memory.store(tensorflow_gradients.dense(gradients))
        return self._update_metrics(batch, observed, rise, plan)

    def test_step(self, data):
        """Keras' evaluation step; `sharpness` is a training metric only."""
        logs = super().test_step(data)
        logs.pop(self.sharpness_tracker.name, None)
        return logs

    def _needs_no_perturbation(self, plan):
        if self._is_base_optimizer:
            return True
        if self.ascent == "previous":
            return False  # The gradient is to be stored.
        return not plan.perturbs or (plan.gamma == 1 and not self._subset(plan))

    def _base_step(self, data, plan):
        logs = super().train_step(data)
        if not self._logs_sharpness(plan):
            logs.pop(self.sharpness_tracker.name, None)
        return logs

    def _two_gradients(self, batch, weights, state, plan):
        """The ascent's gradient and the update's, both of this batch.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            weights: List of tensors, values of the trainable variables.
            state: List of pairs `(variable, tensor)` for all other variables.
            plan: `StepPlan`.

        Returns:
            Tuple of the clean `ForwardPass`, the gradients for the update, and
            the rise of each sample's loss, shape `(batch_size,)`, or `None`.
        """
        selects = self._selects(batch, plan)
        subset = self._subset(plan)
        clean, gradients = tensorflow_gradients.gradients(
            self,
            batch,
            weights,
            state,
            subset,
            per_sample=not selects or self.rank_by != "random",
        )
        perturbed, norm = self._perturb(clean.weights, gradients, plan)
        kept, rise = batch, None
        if selects:
            kept, rise = self._select(batch, plan, clean, perturbed, state)
        final, gradients = tensorflow_gradients.gradients(
            self,
            kept,
            perturbed,
            state,
            range(len(weights)),
            per_sample=not selects,
            valid=norm,
        )
        if final.sample_losses is not None:
            rise = final.sample_losses - clean.sample_losses
        elif not selects:
            self._has_sample_losses = False
        return clean, gradients, rise

    def _one_gradient(self, batch, weights, state, plan):
        """As `_two_gradients`, with the ascent's gradient of the step before.

        The one pass over the whole batch is that at the perturbed weights. A
        gradient that is not finite, as after an overflow, perturbs nothing.
        """
        stored = self._gradient_memory.read()
        gradients = [stored[index] for index in self._subset(plan)]
        perturbed, norm = self._perturb(weights, gradients, plan)
        # Unlike `where`, it does not go through all the weights.
        perturbed = keras.ops.cond(
            tf.math.is_finite(norm), lambda: perturbed, lambda: list(weights)
        )
        kept, whole = batch, None
        if self._selects(batch, plan):
            whole = tensorflow_passes.forward(
                self,
                batch,
                perturbed,
                state,
                per_sample=self.rank_by != "random",
            )
            kept, _ = self._select(batch, plan, whole, perturbed, state)
        final, gradients = tensorflow_gradients.gradients(
            self, kept, perturbed, state, range(len(weights)), per_sample=False
        )
        return whole or final, gradients, None

    def _perturb(self, weights, gradients, plan):
        """The weights at theta + eps, and the norm of the ascent gradient."""
        subset = self._subset(plan)
        perturbations, norm = ascent.ascent_step(
            tensorflow_gradients.dense(gradients),
            [weights[index] for index in subset],
            self._radius(),
            self._inclusion_probabilities(subset, plan),
            masks=self._draw_masks(weights, plan) if subset else None,
            adaptive=self.adaptive,
            scale=self.scale,
        )
        perturbed = list(weights)
        for index, perturbation in zip(subset, perturbations, strict=True):
            if perturbation is not None:
                perturbed[index] = weights[index] + perturbation
        return perturbed, norm

    def _selects(self, batch, plan):
        """Whether a step drops samples, as far as it is known in tracing."""
        if plan.gamma == 1 or not plan.perturbs:
            return False
        num_samples = batch_size(batch)
        count = selection.num_selected(num_samples, plan.gamma)
        return not isinstance(num_samples, int) or count < num_samples

    def _select(self, batch, plan, observed, perturbed, state):
        """The samples to keep, and how much the loss of each sample rises."""
        num_samples = batch_size(batch)
        rise = None
        if self.rank_by == "random":
            scores = keras.random.uniform(
                (num_samples,), seed=self.seed_generator
            )
        else:
            scores = observed.sample_losses
            if scores is None:
                raise self._no_sample_losses_error()
        if self.rank_by == "sharpness":
            ranking = tensorflow_passes.forward(
                self, batch, perturbed, state, total=False
            )
            scores = rise = ranking.sample_losses - scores
        count = selection.num_selected(num_samples, plan.gamma)
        indices = selection.select(scores, count)
        return selection.gather(batch, indices, take=take), rise

    def _update_metrics(self, batch, observed, rise, plan):
        x, y, sample_weight = batch
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_tracker.update_state(
            observed.loss * tf.cast(num_replicas, observed.loss.dtype),
            sample_weight=batch_size(batch),
        )
        logs_sharpness = self._logs_sharpness(plan)
        if logs_sharpness and rise is not None:
            # A step that the optimizer skips for an overflow does not count.
            valid = tf.math.is_finite(rise)
            self.sharpness_tracker.update_state(
                tf.where(valid, rise, tf.zeros_like(rise)), sample_weight=valid
            )
        logs = self.compute_metrics(x, y, observed.y_pred, sample_weight)
        if not logs_sharpness:
            logs.pop(self.sharpness_tracker.name, None)
        return logs
