"""What the training steps of all Keras backends share.

Keras' private names that the library depends on, all of them methods and
attributes of `keras.Model` and its parts, checked by a test against the
installed Keras: `_call_has_training_arg`, `_compile_loss`, `_compute_loss`,
`_flatten_layers`, `_loss_tracker`, `_make_function`, `_symbolic_build`;
`_flat_losses` and `_metrics` of `CompileLoss`; `_check_variables_are_known` of
`keras.optimizers.Optimizer`; `_is_default` of a `build` method.
"""

import keras

from keras_esam import ascent
from keras_esam import sample_losses
from keras_esam import subsets


class BaseTrainer:
    """Part of `ESAMModel`: which variables, masks and losses a step works with.

    A trainer of a backend extends it with `make_train_function()` and
    `train_step()`.
    """

    @property
    def num_subsets(self) -> int:
        """Number of subsets of the variables, one compiled step for each."""
        if self.rho == 0 or self.granularity == "weight":
            return 1
        return subsets.pool_size(self.beta)

    @property
    def upcoming_subset(self) -> int:
        """Index of the subset that the next execution of `fit` perturbs."""
        return subsets.subset_at(
            self._num_executions, self.num_subsets, self.seed
        )

    @property
    def subset_pool(self) -> subsets.SubsetPool:
        """The subsets, as indices into `trainable_variables`."""
        num_variables = len(self.trainable_variables)
        if self.granularity == "weight":
            everything = tuple(range(num_variables))
            return subsets.SubsetPool(
                (everything,), (self.beta,) * num_variables
            )
        return subsets.draw_pool(num_variables, self.beta, self.seed)

    @property
    def _traced_subset(self) -> tuple[int, ...]:
        """Indices of the variables that the step being traced perturbs."""
        if self._traced_subset_index is None:
            raise ValueError(
                "`train_step()` is specialised to a subset of the variables "
                "and is to be called by `fit()` or `train_on_batch()` only."
            )
        if self.rho == 0:
            return ()
        return self.subset_pool.subsets[self._traced_subset_index]

    @property
    def _selects_samples(self) -> bool:
        return self.rho > 0 and self.gamma < 1

    @property
    def _uses_sample_losses(self) -> bool:
        """Whether the clean pass needs the loss of each sample."""
        return self.gamma == 1 or self.rank_by != "random"

    def _inclusion_probabilities(self, subset) -> list[float]:
        """Probability of being perturbed, for each variable in a subset."""
        if self.scale == "authors":
            return [self.beta] * len(subset)
        probabilities = self.subset_pool.probabilities
        return [probabilities[index] for index in subset]

    def _draw_masks(self, weights):
        """Masks of the perturbed scalars, or `None` to perturb them all.

        Args:
            weights: List of tensors, values of the trainable variables.

        Returns:
            List of boolean tensors with the shapes of `weights`, or `None`.
        """
        if self.granularity != "weight" or self.beta == 1:
            return None
        return ascent.bernoulli_masks(
            [weight.shape for weight in weights], self.beta, self.seed_generator
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

    def _no_sample_losses_error(self) -> ValueError:
        return ValueError(
            f'`gamma={self.gamma}` with `rank_by="{self.rank_by}"` needs the '
            "loss of each sample, shape `(batch_size,)`. Compile with a loss "
            "that does not reduce over the batch by itself, override "
            "`compute_sample_losses()` along with `compute_loss()`, or use "
            '`gamma=1` or `rank_by="random"`. '
            f"Received: loss={self.loss}"
        )

    def _check_trainable(self):
        """Raises an error if network, optimizer and metrics can not be trained.

        Raises:
            ValueError: If there is nothing to train, or no optimizer, or one
                that was built for the variables of another model; if SDS would
                pass smaller batches to layers with a state for each sample;
                if a metric has the name of our own.
        """
        if not self.trainable_variables:
            raise ValueError(
                "`model` must have trainable weights. Received: "
                f"model={self.model}, all of whose weights are frozen or which "
                "has none."
            )
        if self.optimizer is None:
            raise ValueError(
                "`compile()` must be given an optimizer. Received: "
                "optimizer=None"
            )
        self._check_optimizer()
        stateful = [
            layer.name
            for layer in self._flatten_layers()
            if getattr(layer, "stateful", False)
        ]
        if self._selects_samples and stateful:
            raise ValueError(
                f"`gamma` must be 1 for a network with stateful layers, "
                f"{stateful}: they have a state for each sample of a batch, "
                "and the selected samples are a smaller batch. "
                f"Received: gamma={self.gamma}"
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
