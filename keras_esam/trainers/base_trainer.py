"""What the training steps of all Keras backends share.

Keras' private names that the library depends on, all of them methods and
attributes of `keras.Model` and its parts, checked by a test against the
installed Keras: `_build_shapes_dict`, `_call_has_training_arg`,
`_compile_loss`, `_compute_loss`, `_flatten_layers`,
`_get_metrics_result_or_logs`, `_initial_epoch`, `_loss_tracker`,
`_make_function`, `_maybe_symbolic_build`, `_symbolic_build`;
`_flat_losses` and `_metrics` of `CompileLoss`; `_check_variables_are_known` of
`keras.optimizers.Optimizer`; `_is_default` of a `build` method; `_model` of a
callback; `get_keras_mask` and `set_keras_mask` of `keras.src.backend`, and
`get_global_attribute` of its `common.global_state`;
`_run_through_graph` of `keras.Function` and `_functional` of
`keras.Sequential`; on JAX `_jax_state` and `_jax_state_synced` of
`keras.Model`.
"""

import dataclasses
import math

import keras

from keras_esam import arguments
from keras_esam import ascent
from keras_esam import sample_losses
from keras_esam import subsets
from keras_esam import variable_order
from keras_esam.step_plan import StepPlan
from keras_esam.step_plan import plan_step
from keras_esam.step_plan import value_at


class BaseTrainer:
    """Part of `ESAMModel`: which variables, masks and losses a step works with.

    A trainer of a backend extends it with `make_train_function()` and
    `train_step()`.
    """

    @property
    def upcoming_step(self) -> StepPlan:
        """What the next execution of `fit` does, and with which subset."""
        self._read_progress()
        return self._plan_step()

    def _plan_step(self) -> StepPlan:
        if self._is_base_optimizer:
            return StepPlan(perturbs=False)
        plan = plan_step(
            self._progress.num_executions,
            self._progress.num_steps,
            self.beta,
            self.gamma,
            self.granularity,
            self.interval,
            self._progress.seed,
        )
        if not plan.perturbs or not self.built:
            return plan
        # A pool of few variables has equal subsets; they share one step.
        pool = self._make_pool(plan.beta).subsets
        first = pool.index(pool[plan.subset_index])
        return dataclasses.replace(plan, subset_index=first)

    @property
    def num_subsets(self) -> int:
        """Number of subsets of the variables.

        There is one compiled step for each, or for several that are equal, as
        they are in networks of few variables.
        """
        if self._is_base_optimizer:
            return 1
        self._read_progress()
        return subsets.pool_size(self._current_beta, self.granularity)

    @property
    def subset_pool(self) -> subsets.SubsetPool:
        """The subsets, as indices into `trainable_variables`."""
        self._read_progress()
        return self._make_pool(self._current_beta)

    def _flatten_layers(self, include_self=True, recursive=True):
        """The layers, those of the network in the order that it has itself.

        Keras goes through the layers of a layer from the last one to the first,
        and so would sum the losses that they add in another order, which rounds
        differently.
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

    @property
    def _current_beta(self):
        return value_at(self.beta, self._progress.num_steps)

    @property
    def _is_base_optimizer(self) -> bool:
        return isinstance(self.rho, float) and self.rho == 0

    def _sync_variables(self):
        """Sees to it that the variables have their values, in `fit` too."""

    @property
    def _training_variables(self) -> list:
        """Variables of the training: no weights, and nothing that a pass reads.

        The last one is that of the progress.
        """
        if not hasattr(self, "_gradient_memory"):
            return []
        return [*self._gradient_memory.variables, self._progress.variable]

    @property
    def _network_state(self) -> list:
        """Variables that a pass reads and may assign, but no weights."""
        others = {id(variable) for variable in self._training_variables}
        return [v for v in self.non_trainable_variables if id(v) not in others]

    def _read_progress(self):
        """Takes over what was loaded into the variable of the progress."""
        self._progress.read()

    def _track_training_state(self):
        """Has the variables of the training there, so that they can be loaded,
        as soon as the network has its own."""
        if self.ascent == "previous" and self.built:
            self._build_gradient_memory()

    def _build_gradient_memory(self):
        self._gradient_memory.build(self.trainable_variables)

    def _check_strategy(self, network):
        """Raises an error if the network can't be trained on these devices."""

    def _same_on_all_workers(self, value):
        """An integer, that of the chief if it differs between the workers."""
        return value

    def _make_pool(self, beta):
        order = self._variable_order or self._find_variable_order()
        # Layers may have been frozen since the order was found.
        num_variables = len(self.trainable_variables)
        num_variables = max(num_variables, 1 + max(order, default=-1))
        return subsets.make_pool(
            self.granularity, order, beta, self._progress.seed, num_variables
        )

    def _find_variable_order(self) -> tuple[int, ...]:
        """Indices of the weights among `trainable_variables`, from the
        network's input on."""
        variables = self.trainable_variables
        index = {id(variable): i for i, variable in enumerate(variables)}
        order = filter(
            variable_order.is_weight, variable_order.graph_order(self)
        )
        return tuple(index[id(variable)] for variable in order)

    @property
    def _overwritten(self) -> list[int]:
        """Indices of the `trainable_variables` that are no weights: their
        gradients are their new values."""
        return [
            index
            for index, variable in enumerate(self.trainable_variables)
            if not variable_order.is_weight(variable)
        ]

    def _subset(self, plan) -> tuple[int, ...]:
        """Indices of the variables that a step perturbs."""
        if not plan.perturbs:
            return ()
        return self._make_pool(plan.beta).subsets[plan.subset_index]

    def _radius(self):
        """Float, or scalar tensor if `rho` is a schedule."""
        if isinstance(self.rho, float):
            return self.rho
        return self.rho(self.optimizer.iterations)

    @property
    def _may_log_sharpness(self) -> bool:
        """Whether some steps know the rise of the losses."""
        return (
            self.ascent == "current"
            and not self._is_base_optimizer
            and any(map(self._knows_rise, arguments.values_of(self.gamma)))
            and self._has_sample_losses
        )

    def _knows_rise(self, gamma) -> bool:
        """Whether the rise of the losses is known without more passes."""
        return gamma == 1 or self.rank_by == "sharpness"

    def reset_metrics(self):
        self._has_sharpness = False
        super().reset_metrics()

    def _with_sharpness_or_nan(self, logs):
        """The logs, with NaN where no step since the last reset has measured.

        It is put in on the host: in the compiled step it would look like an
        error of the training.
        """
        name = self.sharpness_tracker.name
        if self._has_sharpness or name not in logs:
            return logs
        return {**logs, name: math.nan}

    def _get_metrics_result_or_logs(self, logs):
        logs = super()._get_metrics_result_or_logs(logs)
        return self._with_sharpness_or_nan(logs)

    def _inclusion_probabilities(self, subset, plan) -> list[float]:
        """Probability of being perturbed, for each variable in a subset."""
        if self.scale == "authors":
            return [plan.beta] * len(subset)
        probabilities = self._make_pool(plan.beta).probabilities
        return [probabilities[index] for index in subset]

    def _draw_masks(self, weights, plan):
        """Masks of the perturbed scalars, or `None` to perturb them all.

        Args:
            weights: List of tensors, values of the subset's variables.
            plan: `StepPlan`.

        Returns:
            List of boolean tensors with the shapes of `weights`, or `None`.
        """
        if self.granularity != "weight" or plan.beta == 1:
            return None
        return ascent.bernoulli_masks(
            [weight.shape for weight in weights], plan.beta, self.seed_generator
        )

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
            loss does not tell the losses of the samples.
        """
        del x
        overridden = type(self).compute_loss is not keras.Model.compute_loss
        if overridden or self._compile_loss is None:
            return None
        return sample_losses.compiled_sample_losses(
            self._compile_loss, y, y_pred, sample_weight
        )

    def _no_sample_losses_error(self, y, y_pred) -> ValueError:
        targets, predictions = keras.tree.map_structure(
            lambda leaf: None if leaf is None else tuple(leaf.shape),
            (y, y_pred),
        )
        return ValueError(
            f'`gamma < 1` with `rank_by="{self.rank_by}"` needs the '
            "loss of each sample, shape `(batch_size,)`. Compile with a loss "
            'that does not reduce over the batch by itself, as `"mse"` does '
            "with outputs of shape `(batch_size,)` and not with "
            "`(batch_size, 1)`, override "
            "`compute_sample_losses()` along with `compute_loss()`, or use "
            '`gamma=1` or `rank_by="random"`. '
            f"Received: loss={self.loss}, predictions of shape {predictions} "
            f"and targets of shape {targets}"
        )

    def _check_trainable(self):
        """Raises an error if network, optimizer and metrics can not be trained.

        Raises:
            ValueError: If there is nothing to train, or no optimizer, or one
                that was built for the variables of another model; if SDS would
                pass smaller batches to layers with a state for each sample;
                if a metric has the name of our own.
        """
        if not self.trainable_variables and not self._is_base_optimizer:
            raise ValueError(
                "`model` must have trainable weights, or train with `rho=0`. "
                f"Received: model={self.model}, all of whose weights are "
                "frozen or which has none."
            )
        if self.optimizer is None:
            raise ValueError(
                "`compile()` must be given an optimizer. Received: "
                "optimizer=None"
            )
        self._check_optimizer()
        arguments.check_together(self)
        gammas = arguments.values_of(self.gamma)
        stateful = [
            layer.name
            for layer in self._flatten_layers()
            if getattr(layer, "stateful", False)
        ]
        selects_samples = not self._is_base_optimizer and min(gammas) < 1
        if selects_samples and stateful:
            raise ValueError(
                f"`gamma` must be 1 for a network with stateful layers, "
                f"{stateful}: they have a state for each sample of a batch, "
                "and the selected samples are a smaller batch. "
                f"Received: gamma={arguments.shown(self.gamma)}"
            )
        names = [
            metric.name
            for entry in self.metrics
            if entry is not self.sharpness_tracker
            for metric in getattr(entry, "metrics", [entry])
        ]
        if self.sharpness_tracker.name in names:
            raise ValueError(
                "`metrics` must not have the name of a metric that `ESAMModel` "
                'logs itself. Received: a metric named "sharpness"'
            )

    def _check_optimizer(self):
        if not self.optimizer.built:
            return
        try:
            self.optimizer._check_variables_are_known(self.trainable_variables)
        except ValueError as error:
            raise ValueError(
                "The optimizer was built for the variables of another "
                "model, or before some of these variables became "
                "trainable. Give each model an optimizer of its own. "
                f"Received: optimizer={self.optimizer}"
            ) from error
