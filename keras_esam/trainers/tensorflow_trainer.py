"""The training step of ESAM with `tf.GradientTape`.

A tape that watches fewer tensors records fewer operations, so the step is
specialised to a static subset of the variables. `make_train_function` gives
`fit` a function that picks one of several compiled steps on the host.
"""

import keras
import tensorflow as tf

from keras_esam import training_state
from keras_esam.trainers import own_calls
from keras_esam.trainers import tensorflow_gradients
from keras_esam.trainers import tensorflow_micro_batches
from keras_esam.trainers import tensorflow_passes
from keras_esam.trainers import tensorflow_random
from keras_esam.trainers import tensorflow_replicas
from keras_esam.trainers import tensorflow_rows
from keras_esam.trainers.esam_step import ESAMStep
from keras_esam.trainers.tensorflow_dispatcher import TensorFlowDispatcher
from keras_esam.trainers.tensorflow_functions import without_first_warning
from keras_esam.trainers.tensorflow_workers import MultiWorkerTrainer


class TensorFlowTrainer(MultiWorkerTrainer, ESAMStep):
    """Training step and train function of `ESAMModel` on TensorFlow."""

    _dispatcher = TensorFlowDispatcher
    _value = staticmethod(tf.convert_to_tensor)
    _batch_size = staticmethod(tensorflow_rows.batch_size)
    _take = staticmethod(tensorflow_rows.take)
    _with_rows = staticmethod(tensorflow_rows.with_rows)
    _recorded_if = staticmethod(tensorflow_passes.recorded_if)
    _dense = staticmethod(tensorflow_gradients.dense)
    _forward = tensorflow_passes.forward
    _shared_operations = tensorflow_passes.SharedTensors
    _gradients = tensorflow_gradients.gradients
    _check_gradients = tensorflow_gradients.check_gradients
    _check_random_numbers = staticmethod(
        tensorflow_random.warn_of_random_operations
    )
    _each_micro_batch = staticmethod(tensorflow_micro_batches.each_micro_batch)

    @own_calls.own_calls()
    def train_step(self, data):
        """One training step, see `keras_esam.trainers.esam_step`.

        Args:
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        plan = self._plan()
        if self._needs_no_perturbation(plan):
            logs = self._base_step(data)
            if not self._is_base_optimizer:
                tensorflow_replicas.average(self._network_state)
            return self._without_sharpness(logs)
        return self._esam_step(data, plan)

    def make_test_function(self, force=False):
        """Creates the function that runs one execution of `evaluate`.

        Args:
            force: Boolean, whether to drop the one that is there. Defaults to
                `False`.
        """
        before = self.test_function
        super().make_test_function(force)
        if self.test_function is not before:
            self.test_function = without_first_warning(self.test_function)

    def _base_step(self, data):
        """Keras' own step, with one decision of all replicas to skip it, and
        the same scales of float8 training on all of them."""
        if tensorflow_replicas.count() == 1 or not (
            self._scales_loss or self._overwritten
        ):
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        training = {"training": True} if self._call_has_training_arg else {}
        with tf.GradientTape() as tape:
            y_pred = self(x, **training)
            loss = self._compute_loss(
                x, y, y_pred, sample_weight, training=True
            )
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(
            self._logged_loss(loss), sample_weight=self._batch_size((x,))
        )
        self._apply_gradients(tape.gradient(scaled, self.trainable_weights))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _check_strategy(self, network):
        # The public property is the strategy of the scope, if there was none.
        strategy = network._distribute_strategy
        if network.variables and strategy is not self._distribute_strategy:
            raise ValueError(
                "`ESAMModel` must be made in the scope of the strategy in "
                "which its network was made. Received: strategy="
                f"{self._distribute_strategy}, but that of the network is "
                f"{strategy}"
            )

    @property
    def _scales_loss(self):
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def _build_gradient_memory(self):
        with self.distribute_strategy.scope():
            super()._build_gradient_memory()

    def _track_training_state(self):
        super()._track_training_state()
        # `tf.train.Checkpoint` saves what is an attribute.
        self._training_state = tf.train.Checkpoint(
            progress=self._progress.variable,
            random_states=training_state.random_states(self),
            previous_gradient=self._gradient_memory.variables,
        )

    def _ascent_gradients(self, gradients):
        if self.ascent_scope == "replica":
            return gradients
        return tensorflow_replicas.summed(self._dense(gradients))

    def _keep(self, gradients):
        gradients = self._dense(gradients)
        self._gradient_memory.store(tensorflow_replicas.summed(gradients))

    def _commit(self, updates):
        super()._commit(tensorflow_replicas.averaged(updates))

    def _apply_gradients(self, gradients):
        gradients = list(gradients)
        # Keras lets the replicas' copies drift apart.
        new_values = [gradients[index] for index in self._overwritten]
        for index, value in zip(
            self._overwritten,
            tensorflow_replicas.largest(new_values),
            strict=True,
        ):
            gradients[index] = value
        if self._scales_loss:
            gradients = tensorflow_replicas.all_or_none_finite(
                self._dense(gradients)
            )
        super()._apply_gradients(gradients)

    def _get_metrics_result_or_logs(self, logs):
        # Keras takes these from the metrics, which know all samples of all
        # replicas, unless a step logs other values; then from the last step,
        # the mean over replicas of what each knows.
        results = self.get_metrics_result()
        if logs and set(results) - {self.sharpness_tracker.name} <= set(
            logs
        ) <= set(results):
            logs = {name: results[name] for name in logs}
        return self._with_sharpness_or_nan(logs)

    @staticmethod
    def _logged_loss(loss):
        # Keras divides the losses of replicas by their number.
        return loss * tf.cast(tensorflow_replicas.count(), loss.dtype)
