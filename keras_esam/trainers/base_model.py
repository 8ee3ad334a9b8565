"""How `ESAMModel` connects to Keras' training loops on all backends.

The library depends on some private names of Keras, checked by a test. Of
`keras.Model` and its layers, the names: `_build_shapes_dict`,
`_call_has_training_arg`, `_compile_loss`, `_flatten_layers`,
`_get_metrics_result_or_logs`, `_initial_epoch`, `_jax_state`, `_make_function`,
`_maybe_symbolic_build`, `_symbolic_build`; `_flat_losses` of a compiled loss,
`_is_default` of a method that Keras calls, `compute_output_spec` of
`keras.src.backend`, and `get_keras_mask` and `set_keras_mask` of its
`common.masking`.
"""

import dataclasses
import functools
import math
import warnings

import keras

from keras_esam import ascent
from keras_esam import own_calls
from keras_esam import sample_losses
from keras_esam import subsets
from keras_esam.backends import backend
from keras_esam.dispatcher import StepDispatcher
from keras_esam.plan import StepPlan
from keras_esam.plan import first_own_step
from keras_esam.plan import plan_step
from keras_esam.plan import pool_of
from keras_esam.plan import value_at
from keras_esam.variables import Variables
from keras_esam.variables import find_variables


@dataclasses.dataclass
class Findings:
    """Facts about network and loss, found when a step is traced.

    Args:
        variables: Optional `Variables`.
        has_checked_step: Boolean, whether gradients were checked.
        has_sample_losses: Boolean, whether the loss has per-sample values.
        needs_divisors: Boolean, whether the losses of micro-batches depend on
            masks or weights of other micro-batches.
    """

    variables: Variables | None = None
    has_checked_step: bool = False
    has_sample_losses: bool = True
    needs_divisors: bool = False


class BaseModel(keras.Model):
    """Part of `ESAMModel`: how it trains.

    Each backend adds `_train_step()` and `_dispatcher`, the class of its train
    function.
    """

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        progress = self._progress
        progress.last_begin = math.inf
        history = super().fit(*args, **kwargs)
        method = self._method  # A callback may have set arguments.
        first = first_own_step(method)
        if progress.last_begin < first < math.inf:
            reason = f"its `rho` was above 0, after {first} steps"
            if first == method.start:
                reason = f"its `start={first}`"
            warnings.warn(
                f"`fit` ended after {progress.num_steps} training steps of "
                f"`{self.name}`, before {reason}: all of them were steps of "
                "the base optimizer. `start` and the stages of `rho` count the "
                "batches of the whole training, not its epochs.",
                stacklevel=3,
            )
        return history

    def make_train_function(self, force=False):
        """Creates the function that runs one execution of `fit`.

        Args:
            force: Boolean, whether to drop the compiled steps. Defaults to
                `False`.
        """
        if self.train_function is None or force:
            self._findings = Findings()
            self.train_function = self._dispatcher(self)
        elif isinstance(self.train_function, StepDispatcher):
            self.train_function.forget_if_layers_changed()

    def train_step(self, data, plan=None):
        """One training step, see `keras_esam.step`.

        `fit` calls it. A training loop of your own may call it as well, as
        `train_step(data)`, eagerly.

        Args:
            data: Batch: `x`, `(x, y)` or `(x, y, sample_weight)`.
            plan: Optional `StepPlan`, what the step does. Defaults to the step
                that is due, which is then counted.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        if plan is None and not own_calls.are_own():
            if not self.built:
                x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
                self(x, training=False)
            return self._own_dispatcher().run_by_hand(data)
        return self._train_step(data, plan or self._plan_step())

    def _own_dispatcher(self) -> StepDispatcher:
        """The dispatcher of `fit`, or a new one if a subclass replaces it."""
        self.make_train_function()
        if isinstance(self.train_function, StepDispatcher):
            return self.train_function
        return self._dispatcher(self)

    @own_calls.own_calls()
    def test_step(self, *args):
        """Keras' evaluation step, without `sharpness`, a training metric."""
        result = super().test_step(*args)
        logs = result[0] if isinstance(result, tuple) else result
        logs.pop(self.sharpness_tracker.name, None)
        return result

    @property
    def upcoming_step(self) -> StepPlan:
        """The plan, with its subset, of the next execution of `fit`."""
        self._read_progress()
        variables = self._variables if self.built else Variables()
        return plan_step(self._method, self._progress, variables)

    def _plan_step(self) -> StepPlan:
        variables = Variables()
        if self.built:
            variables = self._findings.variables or self._find_variables()
        return plan_step(self._method, self._progress, variables)

    @property
    def num_subsets(self) -> int:
        """Number of subsets of the variables, at most one compiled step each.

        In networks with few variables some may be equal and share a step.
        """
        if self._method.is_base_optimizer:
            return 1
        return len(self.subset_pool.subsets)

    @property
    def subset_pool(self) -> subsets.SubsetPool:
        """The subsets, as indices into `trainable_variables`."""
        self._read_progress()
        progress = self._progress
        beta = value_at(self.beta, progress.num_steps)
        variables = self._variables if self.built else Variables()
        return pool_of(self._method, beta, progress.seed, variables)

    @property
    def _variables(self) -> Variables:
        """The variables that compiled steps use, or the current ones if layers
        were frozen or unfrozen since."""
        known = self._findings.variables
        if known and known.count == len(self.trainable_variables):
            return known
        return self._find_variables()

    def _find_variables(self) -> Variables:
        return find_variables(self, self._method.perturbable)

    def _flatten_layers(self, include_self=True, recursive=True):
        """The layers, with the network's layers in its own order.

        Keras visits the layers of a layer from last to first. It would thus sum
        their added losses in another order, which rounds differently.
        """
        layers = super()._flatten_layers(include_self, recursive)
        network = getattr(self, "model", None)
        if network is None or not recursive:
            return layers
        of_network = network._flatten_layers()
        known = set(map(id, of_network))
        others = [layer for layer in layers if id(layer) not in known]
        first = 1 if include_self else 0
        return others[:first] + of_network + others[first:]

    def _sync_variables(self):
        """Makes sure that the variables have their values, in `fit` too."""

    def _check_strategy(self, network):
        """Raises an error if the network can't be trained on these devices."""

    def _same_on_all_workers(self, value):
        """An integer; the chief's value if it differs between workers."""
        return value

    @property
    def _training_variables(self) -> list:
        """Variables of the training: no weights, and nothing that a pass reads.

        The last one is the progress variable.
        """
        progress = getattr(self, "_progress", None)
        return [progress.alignment, progress.variable] if progress else []

    @property
    def _network_state(self) -> list:
        """Variables that a pass reads and may assign, but no weights."""
        others = {id(variable) for variable in self._training_variables}
        return [v for v in self.non_trainable_variables if id(v) not in others]

    def _read_progress(self):
        """Reads what was loaded into the progress variable."""
        self._progress.read()

    def _track_training_state(self):
        """Lets a backend's own savers find state that is no weight."""

    def _radius(self, method):
        """Radius of a step: a float, or a scalar tensor if `rho` is a schedule
        or the ascent sees a part of the batch."""
        rho = method.rho
        if not isinstance(rho, float):
            rho = rho(self.optimizer.iterations)
        if method.clean_fraction == 1:
            return rho
        alignment = backend.value(self._progress.alignment)
        return ascent.rescaled_radius(rho, alignment, method.clean_fraction)

    @property
    def _loss_metric(self) -> keras.metrics.Metric:
        """Keras' mean of the loss, the first metric of a compiled model."""
        return keras.Model.metrics.fget(self)[0]

    @property
    def _may_log_sharpness(self) -> bool:
        """Whether some steps know how much the losses increase."""
        has_losses = self._findings.has_sample_losses
        return has_losses and self._method.may_know_increase

    def reset_metrics(self):
        self._has_sharpness = False
        super().reset_metrics()

    def _without_sharpness(self, logs):
        if not self._may_log_sharpness:
            logs.pop(self.sharpness_tracker.name, None)
        return logs

    def _with_sharpness_or_nan(self, logs):
        """The logs, with a NaN `sharpness` if no step since the last reset has
        measured it.

        The NaN is added on the host: in the compiled step it would look like an
        error of the training.
        """
        name = self.sharpness_tracker.name
        if self._has_sharpness or name not in logs:
            return logs
        return {**logs, name: math.nan}

    def _get_metrics_result_or_logs(self, logs):
        logs = super()._get_metrics_result_or_logs(logs)
        return self._with_sharpness_or_nan(logs)

    def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
        """Loss of each sample, by which SDS ranks them.

        A subclass that overrides `compute_loss()` overrides this too, or uses
        `gamma=1` or `rank_by="random"`.

        Args:
            x: Inputs, nested structure of tensors.
            y: Targets, nested structure of tensors.
            y_pred: Predictions, nested structure of tensors.
            sample_weight: Optional, nested structure of tensors.

        Returns:
            Tensor, shape `(batch_size,)`, whose mean is the compiled loss
            without regularisation and `add_loss()`; or `None` if the compiled
            loss has no per-sample values.
        """
        del x
        return sample_losses.of_model(self, y, y_pred, sample_weight)

    compute_sample_losses.is_default = True
