"""The train function of `fit` on TensorFlow."""

import contextlib
import itertools

import keras
import tensorflow as tf

from keras_esam.trainers import part_of_batch
from keras_esam.trainers.dispatcher import StepDispatcher
from keras_esam.trainers.tensorflow_functions import no_retracing_warning


class TensorFlowDispatcher(StepDispatcher):
    """Is called by `fit` with an iterator and runs one execution,
    `steps_per_execution` batches of it.

    Args:
        model: The `ESAMModel`.
    """

    tracing = staticmethod(no_retracing_warning)

    def __call__(self, iterator):
        if self._trainable is None:
            iterator = self._build(iterator)
        model = self._model
        plan = self._begin()
        with self._explained(plan):
            logs = self._logs(plan, self._run(plan, iterator))
        # An iterator over one batch, as of `train_on_batch`, has no spec.
        is_data_set = hasattr(iterator, "element_spec")
        self._count(model.steps_per_execution if is_data_set else 1)
        model._progress.write()
        return logs

    def _explained(self, plan):
        """Context in which a compiled step runs."""
        selects = plan.perturbs and plan.gamma < 1
        if selects or self._model.micro_batch_size is not None:
            return part_of_batch.explained(tf.errors.InvalidArgumentError)
        return contextlib.nullcontext()

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
                model(x)
            # Keras' own way for the rest knows dense tensors only. What it
            # does not build here, tracing the first step does.
            leaves = [t for t in keras.tree.flatten(batch) if t is not None]
            if not model.run_eagerly and all(
                not (t.sparse or t.ragged) for t in leaves
            ):
                model._symbolic_build(data_batch=batch)
        self._prepare()
        return iterator

    @property
    def _runs_eagerly(self):
        return self._model.run_eagerly


def _symbolic(leaf):
    """`KerasTensor` like a tensor, array or `tf.TypeSpec`, or `None`."""
    if not hasattr(leaf, "shape"):
        return None
    return keras.KerasTensor(
        leaf.shape,
        keras.backend.standardize_dtype(leaf.dtype),
        sparse=isinstance(leaf, (tf.SparseTensor, tf.SparseTensorSpec)),
        ragged=isinstance(leaf, (tf.RaggedTensor, tf.RaggedTensorSpec)),
    )
