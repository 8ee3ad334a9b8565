"""One training step of ESAM, alike on all Keras backends.

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

The step is specialised to a static subset of the variables, the one of the plan
`_traced_plan`: gradients of fewer variables cost less.
"""

import contextlib

import keras
from keras import ops

from keras_esam import ascent
from keras_esam import selection
from keras_esam.trainers import micro_batches
from keras_esam.trainers import own_calls
from keras_esam.trainers import part_of_batch
from keras_esam.trainers import passes
from keras_esam.trainers.base_trainer import BaseTrainer
from keras_esam.trainers.dispatcher import StepDispatcher


class ESAMStep(BaseTrainer):
    """Part of `ESAMModel`: the training step.

    A trainer of a backend extends it with its `train_step()`, the class
    `_dispatcher` of its train function, and with what depends on how it
    differentiates: `_gradients()` and `_value()`. The other methods are right
    for dense arrays of known shapes.
    """

    _each_micro_batch = staticmethod(micro_batches.each_micro_batch)
    _gradients_of_micro_batches = micro_batches.gradients
    _own_random_state = micro_batches.own_random_state
    # Whether the losses of micro-batches depend on masks or weights of others.
    _needs_divisors = False
    # Class of what the passes of a step share, where that saves something.
    _shared_operations = None

    def make_train_function(self, force=False):
        """Creates the function that runs one execution of `fit`.

        Args:
            force: Boolean, whether to drop the compiled steps. Defaults to
                `False`.
        """
        if self.train_function is None or force:
            self._has_checked_step = False
            self._has_sample_losses = True
            self._needs_divisors = False
            self._variable_order = None
            self.train_function = self._dispatcher(self)
        elif isinstance(self.train_function, StepDispatcher):
            self.train_function.forget_if_layers_changed()

    def _plan(self):
        if self._traced_plan is None:
            raise ValueError(
                "`train_step()` is specialised to a subset of the variables "
                "and is to be called by `fit()` or `train_on_batch()` only."
            )
        self._has_used_plan = True
        return self._traced_plan

    def _esam_step(self, data, plan):
        """One training step as in the module's docstring.

        Args:
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.
            plan: `StepPlan`.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        batch = keras.utils.unpack_x_y_sample_weight(data)
        takes_rows = plan.gamma < 1 or self.micro_batch_size is not None
        if plan.perturbs and takes_rows:
            batch = self._check_rows(batch)
        weights = [self._value(v) for v in self.trainable_variables]
        state = [(v, self._value(v)) for v in self._network_state]
        if self.ascent == "previous":
            run = self._one_gradient
        elif self._has_micro_batches(batch):
            run = self._gradients_of_micro_batches
        else:
            run = self._two_gradients
        observed, gradients, rise = run(batch, weights, state, plan)
        if not self._has_checked_step:
            self._check_gradients(batch, gradients)
            self._check_random_numbers()
            self._has_checked_step = True

        self._commit(observed.updates)
        self._apply_gradients(gradients)
        if self.ascent == "previous":
            self._keep(gradients)
        return self._update_metrics(batch, observed, rise, plan)

    def _check_rows(self, batch):
        """The batch, of which rows are to be taken.

        Raises:
            ValueError: If not all of its tensors have as many rows, as far as
                it is known in tracing.
        """
        leaves = [
            leaf for leaf in keras.tree.flatten(batch) if leaf is not None
        ]
        shapes = [tuple(leaf.shape) for leaf in leaves]
        counts = {shape[0] if shape else "none" for shape in shapes}
        if "none" in counts or len(counts - {None}) > 1:
            raise ValueError(
                f"{part_of_batch.UNEQUAL_ROWS} "
                f"Received: tensors of shapes {shapes}"
            )
        count = self._batch_size(batch)
        return keras.tree.map_structure(
            lambda leaf: None if leaf is None else self._with_rows(leaf, count),
            batch,
        )

    @staticmethod
    def _recorded_if(condition):
        """Context of a pass that writes what a user sees on a condition."""
        del condition
        return contextlib.nullcontext()

    @staticmethod
    def _with_rows(tensor, count):
        return tensor

    def _forward(self, batch, weights, state, **kwargs):
        """See `passes.forward`."""
        return passes.forward(self, batch, weights, state, **kwargs)

    def _gradients(self, batch, weights, state, sources, valid=None, **kwargs):
        """Forward pass, and the gradient of its loss.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            weights: List of tensors, values of the trainable variables.
            state: List of pairs `(variable, tensor)` for all other variables.
            sources: Indices of the `weights` to differentiate with respect to.
            valid: Optional scalar. If it is not finite neither is the gradient.
            **kwargs: Other arguments of `_forward()`.

        Returns:
            Tuple of a `ForwardPass` and a list of gradients, one for each of
            the `sources`: tensor or `None`, multiplied by the optimizer's loss
            scale.
        """
        raise NotImplementedError

    def _check_gradients(self, batch, gradients):
        """Raises an error if a gradient is missing which plain Keras has.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            gradients: List of the gradients of the trainable variables, `None`
                where there is none.

        Raises:
            ValueError: If the loss depends on a variable without a gradient.
        """

    def _check_random_numbers(self):
        """Warns if the passes of the step draw different random numbers."""

    def _keep(self, gradients):
        """Stores the gradient of the update for the next step's ascent."""
        self._gradient_memory.store(self._dense(gradients))

    def _commit(self, updates):
        """Assigns what the clean pass would have assigned.

        Args:
            updates: List of pairs `(variable, tensor)`.
        """
        for variable, value in updates:
            variable.assign(value)

    def _apply_gradients(self, gradients):
        self.optimizer.apply(gradients, self.trainable_variables)

    def _needs_no_perturbation(self, plan):
        if self._is_base_optimizer:
            return True
        if self.ascent == "previous":
            return False  # The gradient is to be stored.
        return not plan.perturbs or (plan.gamma == 1 and not self._subset(plan))

    def _without_sharpness(self, logs):
        if not self._may_log_sharpness:
            logs.pop(self.sharpness_tracker.name, None)
        return logs

    @own_calls.own_calls()
    def _symbolic_build(self, *args, **kwargs):
        super()._symbolic_build(*args, **kwargs)

    @own_calls.own_calls()
    def test_step(self, *args):
        """Keras' evaluation step; `sharpness` is a training metric only."""
        result = super().test_step(*args)
        logs = result[0] if isinstance(result, tuple) else result
        logs.pop(self.sharpness_tracker.name, None)
        return result

    def _two_gradients(self, batch, weights, state, plan, losses=None):
        """The ascent's gradient and the update's, both of this batch.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            weights: List of tensors, values of the trainable variables.
            state: List of pairs `(variable, tensor)` for all other variables.
            plan: `StepPlan`.
            losses: Optional, see `passes.forward`.

        Returns:
            Tuple of the clean `ForwardPass`, the gradients for the update, and
            the rise of each sample's loss, shape `(batch_size,)`, or `None`.
        """
        selects = self._selects(batch, plan)
        subset = self._subset(plan)
        shared = None
        if selects and self.rank_by == "sharpness" and self._shared_operations:
            shared = self._shared_operations(self, batch[0], subset)
        clean, gradients = self._gradients(
            batch,
            weights,
            state,
            (*subset, *self._overwritten),
            per_sample=not selects or self.rank_by != "random",
            shared=shared,
            losses=losses,
        )
        new_values = gradients[len(subset) :]
        gradients = self._ascent_gradients(gradients[: len(subset)])
        perturbed, norm = self._perturb(clean.weights, gradients, plan)
        kept, rise = batch, None
        if selects:
            kept, rise = self._select(
                batch, plan, clean, perturbed, state, shared, losses
            )
        explained = (
            part_of_batch.explained if selects else contextlib.nullcontext
        )
        with self._recorded_if(False), explained():
            final, gradients = self._gradients(
                kept,
                perturbed,
                state,
                range(len(weights)),
                per_sample=not selects,
                valid=norm,
                losses=losses,
            )
        gradients = list(gradients)
        for index, value in zip(self._overwritten, new_values, strict=True):
            gradients[index] = value
        if final.sample_losses is not None:
            rise = final.sample_losses - clean.sample_losses
        elif not selects:
            self._has_sample_losses = False
        return clean, gradients, rise

    def _has_micro_batches(self, batch):
        """Whether there are several, as far as it is known in tracing."""
        size = self.micro_batch_size
        if size is None:
            return False
        num_samples = self._batch_size(batch)
        return not isinstance(num_samples, int) or num_samples > size

    def _one_gradient(self, batch, weights, state, plan):
        """As `_two_gradients`, with the ascent's gradient of the step before.

        The one pass over the whole batch is that at the perturbed weights. A
        gradient that is not finite, as after an overflow, perturbs nothing.
        """
        stored = self._gradient_memory.read()
        gradients = [stored[index] for index in self._subset(plan)]
        perturbed, norm = self._perturb(weights, gradients, plan)
        perturbed = self._where(ops.isfinite(norm), perturbed, weights)
        kept, whole = batch, None
        if self._selects(batch, plan):
            whole = self._forward(
                batch,
                perturbed,
                state,
                per_sample=self.rank_by != "random",
            )
            kept, _ = self._select(batch, plan, whole, perturbed, state)
        with contextlib.ExitStack() as contexts:
            if whole:
                contexts.enter_context(self._recorded_if(False))
                contexts.enter_context(part_of_batch.explained())
            final, gradients = self._gradients(
                kept, perturbed, state, range(len(weights)), per_sample=False
            )
        return whole or final, gradients, None

    @staticmethod
    def _where(condition, tensors, others):
        """One of two lists of tensors with the same shapes.

        Unlike `where` for each of them, it does not go through all the values.
        """
        return ops.cond(condition, lambda: tensors, lambda: list(others))

    def _perturb(self, weights, gradients, plan):
        """The weights at theta + eps, and the norm of the ascent gradient."""
        subset = self._subset(plan)
        values = [weights[index] for index in subset]
        perturbations, norm = ascent.ascent_step(
            self._dense(gradients),
            values,
            self._radius(),
            self._inclusion_probabilities(subset, plan),
            masks=self._draw_masks(values, plan) if subset else None,
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
        num_samples = self._batch_size(batch)
        count = selection.num_selected(num_samples, plan.gamma)
        return not isinstance(num_samples, int) or count < num_samples

    def _select(
        self, batch, plan, observed, perturbed, state, shared=None, losses=None
    ):
        """The samples to keep, and how much the loss of each sample rises."""
        num_samples = self._batch_size(batch)
        rise = None
        if self.rank_by == "random":
            scores = keras.random.uniform(
                (num_samples,), seed=self.seed_generator
            )
        else:
            scores = observed.sample_losses
            if scores is None:
                raise self._no_sample_losses_error(batch[1], observed.y_pred)
        if self.rank_by == "sharpness":
            with self._recorded_if(False):
                ranking = self._forward(
                    batch,
                    perturbed,
                    state,
                    total=False,
                    shared=shared,
                    losses=losses,
                )
            scores = rise = ranking.sample_losses - scores
        count = selection.num_selected(num_samples, plan.gamma)
        indices = selection.select(scores, count)
        return selection.gather(batch, indices, take=self._take), rise

    @staticmethod
    def _batch_size(batch):
        leaves = keras.tree.flatten(batch[0])
        return next(leaf for leaf in leaves if leaf is not None).shape[0]

    @staticmethod
    def _take(tensor, indices):
        return ops.take(tensor, indices, axis=0)

    @staticmethod
    def _dense(gradients):
        return gradients

    def _ascent_gradients(self, gradients):
        """The gradients to perturb by, as `ascent_scope` says."""
        return gradients

    @staticmethod
    def _logged_loss(loss):
        return loss

    def _update_metrics(self, batch, observed, rise, plan):
        x, y, sample_weight = batch
        self._loss_tracker.update_state(
            self._logged_loss(observed.loss),
            sample_weight=self._batch_size(batch),
        )
        may_log = self._may_log_sharpness and self._knows_rise(plan.gamma)
        if may_log and rise is not None:
            # A step that the optimizer skips for an overflow does not count.
            valid = ops.isfinite(rise)
            self.sharpness_tracker.update_state(
                ops.where(valid, rise, ops.zeros_like(rise)),
                sample_weight=valid,
            )
        logs = self.compute_metrics(x, y, observed.y_pred, sample_weight)
        return self._without_sharpness(logs)
