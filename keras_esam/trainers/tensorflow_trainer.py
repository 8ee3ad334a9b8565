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
        elif isinstance(self.train_function, SubsetDispatcher):
            self.train_function.forget_if_weights_changed()

    def train_step(self, data):
        """One training step as in the module's docstring.

        Args:
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        subset = self._traced_subset
        if self.rho == 0 or (self.gamma == 1 and not subset):
            return self._base_step(data)
        batch = keras.utils.unpack_x_y_sample_weight(data)
        weights = [tf.convert_to_tensor(v) for v in self.trainable_variables]
        state = [
            (v, tf.convert_to_tensor(v)) for v in self.non_trainable_variables
        ]

        clean, gradients = self._gradients(
            batch, weights, state, subset, per_sample=self._uses_sample_losses
        )
        perturbed, norm = self._perturb(clean.weights, gradients, subset)
        kept, rise = batch, None
        if self.gamma < 1:
            kept, rise = self._select(batch, clean, perturbed, state)
        final, gradients = self._gradients(
            kept,
            perturbed,
            state,
            range(len(weights)),
            per_sample=self.gamma == 1,
            valid=norm,
        )
        if not self._has_checked_gradients:
            tensorflow_passes.check_gradients(self, batch, gradients)
            self._has_checked_gradients = True
        if final.sample_losses is not None:
            rise = final.sample_losses - clean.sample_losses

        clean.scope.commit()
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_variables, strict=True)
        )
        return self._update_metrics(batch, clean, rise)

    def test_step(self, data):
        """Keras' evaluation step; `sharpness` is a training metric only."""
        logs = super().test_step(data)
        logs.pop(self.sharpness_tracker.name, None)
        return logs

    def _base_step(self, data):
        logs = super().train_step(data)
        if self.rho == 0:
            logs.pop(self.sharpness_tracker.name, None)
        return logs

    def _gradients(
        self, batch, weights, state, sources, per_sample, valid=None
    ):
        """Forward pass, and the gradient of its loss.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            weights: List of tensors, values of the trainable variables.
            state: List of pairs `(variable, tensor)` for all other variables.
            sources: Indices of the `weights` to differentiate with respect to.
            per_sample: Boolean, whether to compute the per-sample losses.
            valid: Optional scalar. If it is not finite the gradient is NaN.

        Returns:
            Tuple of a `ForwardPass` and a list of gradients, one for each of
            the `sources`: tensor, `tf.IndexedSlices` or `None`, multiplied by
            the optimizer's loss scale.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weights[index] for index in sources])
            result = self._forward(
                batch, weights, state, per_sample=per_sample, tape=tape
            )
            loss = self.optimizer.scale_loss(result.loss)
            if valid is not None:
                # An overflow in B1 must reach the optimizer, which then skips
                # the step, even where the network swallows a NaN in theta.
                loss *= tf.where(
                    tf.math.is_finite(valid),
                    tf.ones((), loss.dtype),
                    tf.constant(float("nan"), loss.dtype),
                )
        with tensorflow_passes.BackwardScope(self.trainable_variables):
            gradients = tape.gradient(
                loss, [result.weights[index] for index in sources]
            )
        return result, gradients

    def _forward(self, batch, weights, state, **kwargs):
        result = tensorflow_passes.forward(
            self, batch, weights, state, **kwargs
        )
        needed = kwargs.get("per_sample", True) and self.gamma < 1
        if needed and result.sample_losses is None:
            raise self._no_sample_losses_error()
        return result

    def _perturb(self, weights, gradients, subset):
        """The weights at theta + eps, and the norm of the ascent gradient."""
        # Sums duplicate rows of an Embedding's gradient.
        gradients = [
            None if g is None else tf.convert_to_tensor(g) for g in gradients
        ]
        perturbations, norm = ascent.ascent_step(
            gradients,
            [weights[index] for index in subset],
            self.rho,
            self._inclusion_probabilities(subset),
            masks=self._draw_masks(weights),
            adaptive=self.adaptive,
            scale=self.scale,
        )
        perturbed = list(weights)
        for index, perturbation in zip(subset, perturbations, strict=True):
            if perturbation is not None:
                perturbed[index] = weights[index] + perturbation
        return perturbed, norm

    def _select(self, batch, clean, perturbed, state):
        """The samples to keep, and how much the loss of each sample rises."""
        num_samples = batch_size(batch)
        rise = None
        if self.rank_by == "random":
            scores = keras.random.uniform(
                (num_samples,), seed=self.seed_generator
            )
        elif self.rank_by == "loss":
            scores = clean.sample_losses
        else:
            ranking = self._forward(batch, perturbed, state, total=False)
            scores = rise = ranking.sample_losses - clean.sample_losses
        count = selection.num_selected(num_samples, self.gamma)
        indices = selection.select(scores, count)
        return selection.gather(batch, indices, take=take), rise

    def _update_metrics(self, batch, clean, rise):
        x, y, sample_weight = batch
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_tracker.update_state(
            clean.loss * tf.cast(num_replicas, clean.loss.dtype),
            sample_weight=batch_size(batch),
        )
        if rise is not None:
            # A step that the optimizer skips for an overflow does not count.
            valid = tf.math.is_finite(rise)
            self.sharpness_tracker.update_state(
                tf.where(valid, rise, tf.zeros_like(rise)), sample_weight=valid
            )
        logs = self.compute_metrics(x, y, clean.y_pred, sample_weight)
        if rise is None:
            logs.pop(self.sharpness_tracker.name, None)
        return logs
