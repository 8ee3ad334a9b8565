"""The train function of `fit` on TensorFlow: one compiled step per plan."""

import contextlib
import itertools

import keras
import tensorflow as tf


class SubsetDispatcher:
    """Runs the compiled step that is due, see `keras_esam.step_plan`.

    It is called by `fit` with an iterator and runs one execution,
    `steps_per_execution` batches of it. The choice is made on the host: XLA is
    slow for convolutions inside of conditionals. A step is traced when it is
    first due.

    Args:
        model: The `ESAMModel`.
    """

    def __init__(self, model):
        self._model = model
        self._functions = {}
        self._is_built = False
        self._weights = None

    def __call__(self, iterator):
        if not self._is_built:
            iterator = self._build(iterator)
        plan = self._model.upcoming_step
        if plan in self._functions:
            logs = self._functions[plan](iterator)
        else:
            self.forget_if_weights_changed()
            self._forget_other_stages(plan)
            function = self._make_function(plan)
            try:
                with _no_retracing_warning():
                    logs = function(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                # Data of unknown length has ended; the step is compiled.
                self._functions[plan] = function
                raise
            self._functions[plan] = function
        self._model._num_executions += 1
        # An iterator over one batch, as of `train_on_batch`, has no spec.
        is_data_set = hasattr(iterator, "element_spec")
        self._model._num_steps += (
            self._model.steps_per_execution if is_data_set else 1
        )
        return logs

    def forget_if_weights_changed(self):
        """Drops the compiled steps if layers were frozen or unfrozen.

        Steps that were compiled before and after it would train other weights.
        """
        weights = [id(variable) for variable in self._model.trainable_variables]
        if self._is_built and weights != self._weights:
            self._functions.clear()
            self._prepare()

    def _forget_other_stages(self, plan):
        """Drops the steps of a `beta` or `gamma` that will not come again."""
        self._functions = {
            other: function
            for other, function in self._functions.items()
            if (other.beta, other.gamma) == (plan.beta, plan.gamma)
        }

    def _make_function(self, plan):
        def step(data):
            # Runs at each tracing, so that every trace gets its own plan.
            self._model._traced_plan = plan
            return self._model.train_step(data)

        return self._model._make_function(step)

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
        self._is_built = True
        return iterator

    def _prepare(self):
        model = self._model
        model._check_trainable()
        if model.ascent == "previous":
            with model.distribute_strategy.scope():
                model._gradient_memory.build(model.trainable_variables)
        self._weights = [id(variable) for variable in model.trainable_variables]
        model._variable_order = model._find_variable_order()


@contextlib.contextmanager
def _no_retracing_warning():
    """TensorFlow takes the steps of the subsets for retraces of one function.

    Its advice, to make fewer of them, would be wrong here.
    """

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


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
