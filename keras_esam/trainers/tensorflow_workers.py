"""What `tf.distribute.MultiWorkerMirroredStrategy` needs beyond Keras.

Keras' own `fit` fails there, https://github.com/keras-team/keras/issues/20585:
before the first step it reduces a batch to build the model from, and it
averages the scalar logs of the workers along an axis that they do not have. All
workarounds are in this file. None of it runs with any other strategy, or with
one worker.

The workers run the same script, and each collective operation waits for all of
them. So what decides on the next one, such as the seed, must be the same on
all.
"""

import keras
import tensorflow as tf

from keras_esam.trainers.base_model import BaseModel


class MultiWorkerModel(BaseModel):
    """Part of `ESAMModel` on TensorFlow: training with several workers."""

    @property
    def _has_workers(self) -> bool:
        strategy = self.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return False
        # With one worker Keras does not reduce in its other way either.
        jobs = strategy.cluster_resolver.cluster_spec().as_dict()
        return sum(map(len, jobs.values())) > 1

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._has_workers and iterator is not None:
            strategy = self.distribute_strategy
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(
                lambda leaf: strategy.experimental_local_results(leaf)[0],
                next(batches),
            )
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function):
        if self._has_workers:
            if self.steps_per_execution > 1:
                raise ValueError(
                    "`steps_per_execution` must be 1 with several workers: "
                    "TensorFlow can not run their collective operations in a "
                    "loop. Received: "
                    f"steps_per_execution={self.steps_per_execution}"
                )
            step_function = _with_logs_of_shape_1(step_function)
        return super()._make_function(step_function)

    def make_predict_function(self, force=False):
        """Creates the function that predicts a list of batches.

        With several workers each one gets the predictions of all workers, in
        the order of the data. Keras would gather them in the compiled function,
        which the workers recompile for other batch sizes, not all at once.

        Args:
            force: Boolean, whether to drop the existing one. Defaults to
                `False`.
        """
        if not self._has_workers:
            super().make_predict_function(force)
            return
        if self.predict_function is not None and not force:
            return
        strategy = self.distribute_strategy

        @tf.autograph.experimental.do_not_convert
        def predict_part(batch):
            return strategy.run(self.predict_step, args=(batch,))

        if not self.run_eagerly:
            predict_part = tf.function(
                predict_part,
                reduce_retracing=True,
                jit_compile=self.jit_compile,
            )

        def predict_function(batches):
            outputs = [
                keras.tree.map_structure(
                    lambda part: strategy.gather(part, axis=0),
                    predict_part(batch),
                )
                for batch in batches
            ]
            return keras.tree.map_structure(
                lambda *parts: tf.concat(parts, axis=0), *outputs
            )

        self.predict_function = predict_function

    def _same_on_all_workers(self, value):
        if not self._has_workers:
            return value
        # All workers get the chief's initial values.
        with self.distribute_strategy.scope():
            return int(tf.Variable(value, dtype="int64").numpy())

    def _check_workers(self):
        """Raises an error if the workers are not at the same step.

        Raises:
            ValueError: If their next steps differ, for instance because only
                some of them restored a backup.
        """
        if not self._has_workers:
            return
        strategy = self.distribute_strategy
        self._read_progress()
        progress = self._progress
        place = [progress.seed, progress.num_executions]
        per_worker = strategy.gather(
            strategy.experimental_distribute_values_from_function(
                lambda context: tf.constant([place], "int64")
            ),
            axis=0,
        ).numpy()
        if (per_worker != per_worker[0]).any():
            raise ValueError(
                "All workers must start from the same state. Give them the "
                "same `seed`, and the same backup to restore. Received, for "
                "each replica, seed and executions that were run: "
                f"{per_worker.tolist()}"
            )


def _with_logs_of_shape_1(step_function):
    """A step whose logs can be averaged along their first axis."""

    def step(*args):
        return keras.tree.map_structure(
            lambda value: tf.expand_dims(value, 0), step_function(*args)
        )

    return step
