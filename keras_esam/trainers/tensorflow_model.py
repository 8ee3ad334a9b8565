"""Training with `fit` on TensorFlow."""

import contextlib
import itertools

import keras
import tensorflow as tf

from keras_esam import own_calls
from keras_esam import rows
from keras_esam import step
from keras_esam import training_state
from keras_esam.backends import forward_pass
from keras_esam.backends import tensorflow_backend as backend
from keras_esam.backends import tensorflow_replicas
from keras_esam.dispatcher import StepDispatcher
from keras_esam.trainers.tensorflow_workers import MultiWorkerModel


class TensorFlowDispatcher(StepDispatcher):
    """Runs one execution, `steps_per_execution` batches, of an iterator.

    `fit` calls it with the iterator.

    Args:
        model: The `ESAMModel`.
    """

    tracing = staticmethod(backend.no_retracing_warning)

    def __call__(self, iterator):
        if self._trainable_parts is None:
            iterator = self._build(iterator)
        model = self._model
        plan = self._begin()
        with rows.explained(plan.takes_rows, tf.errors.InvalidArgumentError):
            logs = self._logs(plan, self._run(plan, iterator))
        # An iterator over one batch, as in `train_on_batch`, has no spec.
        is_data_set = hasattr(iterator, "element_spec")
        self._count(model.steps_per_execution if is_data_set else 1)
        model._progress.write()
        return logs

    def run_by_hand(self, data):
        is_replica = tensorflow_replicas.count() > 1
        if is_replica or not tf.executing_eagerly():
            raise ValueError(
                "`train_step(data)` does the step that is due, which is "
                "another one each time, so it can't be within a `tf.function` "
                "or `strategy.run`. Call `train_on_batch()`, which compiles, "
                "or give it the `plan` of the step. Received: plan=None"
            )
        if self._trainable_parts is None:
            self._build(iter([data]))
        return super().run_by_hand(data)

    def _make_function(self, plan, iterator):
        return self._model._make_function(self._step(plan))

    def _build(self, iterator):
        """Creates all variables, since a stateless call can create none.

        Args:
            iterator: Iterator over batches, or over one batch.

        Returns:
            An iterator over the same batches.
        """
        if hasattr(iterator, "element_spec"):
            batch = keras.tree.map_structure(_symbolic, iterator.element_spec)
        else:
            first = next(iterator)
            iterator = itertools.chain([first], iterator)
            batch = keras.tree.map_structure(_symbolic, first)
        model = self._model
        model._check_workers()
        with model.distribute_strategy.scope():
            if not model.model.built:
                x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
                # A symbolic call would refuse outputs that are `None`.
                keras.src.backend.compute_output_spec(model, x, training=False)
            # Keras builds the rest for dense tensors only. What it does not
            # build here is built by tracing the first step, twice then.
            leaves = [t for t in keras.tree.flatten(batch) if t is not None]
            if not model.run_eagerly and all(
                not (t.sparse or t.ragged) for t in leaves
            ):
                with own_calls.own_calls():
                    model._symbolic_build(data_batch=batch)
            self.prepare()
        return iterator

    @property
    def _runs_eagerly(self):
        return self._model.run_eagerly


def _symbolic(leaf):
    """`KerasTensor` for a tensor, array or `tf.TypeSpec`, or `None`."""
    if not hasattr(leaf, "shape"):
        return None
    return keras.KerasTensor(
        leaf.shape,
        keras.backend.standardize_dtype(leaf.dtype),
        sparse=isinstance(leaf, (tf.SparseTensor, tf.SparseTensorSpec)),
        ragged=isinstance(leaf, (tf.RaggedTensor, tf.RaggedTensorSpec)),
    )


class TensorFlowModel(MultiWorkerModel):
    """Part of `ESAMModel` on TensorFlow."""

    _dispatcher = TensorFlowDispatcher

    def _train_step(self, data, plan):
        own_calls.count_step()
        with own_calls.own_calls():
            if not plan.is_base_step:
                return step.train_step(self, plan, data)
            logs = self._base_step(data, plan)
            if not self._method.is_base_optimizer:
                tensorflow_replicas.average(self._network_state)
            return self._without_sharpness(logs)

    def _base_step(self, data, plan):
        """Keras' own step. All replicas decide together whether to skip it, and
        have the same scales of float8 training."""
        scales_loss = isinstance(
            self.optimizer, keras.optimizers.LossScaleOptimizer
        )
        if tensorflow_replicas.count() == 1 or not (
            scales_loss or plan.overwritten
        ):
            return keras.Model.train_step(self, data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = forward_pass.call(self, x, training=True)
            loss = forward_pass.total_loss(self, x, y, y_pred, sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_metric.update_state(
            backend.unscaled_loss(loss),
            sample_weight=backend.batch_size((x,)),
        )
        gradients = tape.gradient(scaled, self.trainable_weights)
        backend.apply_gradients(self, plan, gradients)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def make_test_function(self, force=False):
        """Creates the function that runs one execution of `evaluate`.

        Args:
            force: Boolean, whether to drop the existing one. Defaults to
                `False`.
        """
        before = self.test_function
        super().make_test_function(force)
        if self.test_function is not before:
            self.test_function = _without_first_warning(self.test_function)

    def _check_strategy(self, network):
        if not network.variables:
            return
        # One-device strategies have the same variables as no strategy.
        strategy, current = (
            getattr(variable, "distribute_strategy", None)
            for variable in (network.variables[0].value, tf.Variable(0.0))
        )
        if strategy is not current:
            raise ValueError(
                "`ESAMModel` must be made in the scope of the strategy in "
                "which its network was made. Received: strategy="
                f"{current}, but the network's is {strategy}"
            )

    def _track_training_state(self):
        super()._track_training_state()
        # `tf.train.Checkpoint` saves attributes.
        self._training_state = tf.train.Checkpoint(
            progress=self._progress.variable,
            alignment=self._progress.alignment,
            random_states=training_state.random_states(self),
        )

    def _get_metrics_result_or_logs(self, logs):
        # Keras takes these from the metrics, which count all samples of all
        # replicas. If a step logs other values, it takes the last step's logs
        # instead, averaged over the replicas.
        results = self.get_metrics_result()
        if logs and set(results) - {self.sharpness_tracker.name} <= set(
            logs
        ) <= set(results):
            logs = {name: results[name] for name in logs}
        return self._with_sharpness_or_nan(logs)


def _without_first_warning(function):
    """A function whose first call traces in `no_retracing_warning()`.

    TensorFlow counts the traces of a new test function together with earlier
    train functions, which come from the same lines of Keras. Later traces are
    retraces, and it warns about them.
    """
    contexts = iter([backend.no_retracing_warning()])

    def call(*args):
        with next(contexts, contextlib.nullcontext()):
            return function(*args)

    return call
