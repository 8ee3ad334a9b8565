"""The training step of ESAM with `torch.autograd.grad`.

The passes work on detached values of the variables. Those that a gradient is
taken of are leaves that require one, and PyTorch records what depends on them
only: of a subset from some layer on nothing below that layer.
"""

import keras
import torch
from keras import ops

from keras_esam.trainers import passes
from keras_esam.trainers.esam_step import ESAMStep
from keras_esam.trainers.torch_dispatcher import TorchDispatcher
from keras_esam.trainers.torch_random import RandomState


class TorchTrainer(ESAMStep):
    """Training step and train function of `ESAMModel` on PyTorch."""

    def make_train_function(self, force=False):
        """Creates the function that runs one execution of `fit`.

        Args:
            force: Boolean, whether to drop the compiled steps. Defaults to
                `False`.
        """
        if self.train_function is None or force:
            self._has_checked_gradients = False
            self._has_sample_losses = True
            self._variable_order = None
            self.train_function = TorchDispatcher(self)
        elif isinstance(self.train_function, TorchDispatcher):
            self.train_function.forget_if_weights_changed()

    def train_step(self, data):
        """One training step, see `keras_esam.trainers.esam_step`.

        Args:
            data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
            Dict of logs, metric name to scalar tensor.
        """
        plan = self._plan()
        if self._needs_no_perturbation(plan):
            return self._without_sharpness(super().train_step(data), plan)
        # To the device once, and not in each of the passes.
        data = keras.tree.map_structure(
            lambda leaf: None if leaf is None else ops.convert_to_tensor(leaf),
            data,
        )
        self._random_state = RandomState()
        try:
            with torch.no_grad():
                return self._esam_step(data, plan)
        finally:
            self._random_state.finish()

    def _forward(self, batch, weights, state, **kwargs):
        with self._random_state.replayed():
            return passes.forward(self, batch, weights, state, **kwargs)

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
            Tuple of a `ForwardPass` without gradient and a list of gradients,
            one for each of the `sources`: tensor or `None`, multiplied by the
            optimizer's loss scale.
        """
        weights = list(weights)
        for index in sources:
            weights[index] = weights[index].detach().requires_grad_()
        variables = self.trainable_variables
        sought = {id(variables[index]) for index in sources}

        def on_assign(variable, value):
            # The gradient of a weight that a layer assigns is that of its new
            # value, as in Keras, and does not reach back to the assignment.
            if id(variable) in sought:
                return value.detach().requires_grad_()
            return value

        with torch.enable_grad():
            result = self._forward(
                batch,
                weights,
                state,
                per_sample=per_sample,
                on_assign=on_assign,
            )
            loss = passes.scaled_loss(self, result.loss, valid)
        leaves = [result.weights[index] for index in sources]
        if not leaves or not loss.requires_grad:
            return _detached(result), [None] * len(leaves)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return _detached(result), list(gradients)

    def _check_gradients(self, batch, gradients):
        """Raises an error if a gradient is missing which plain Keras has.

        Args:
            batch: Tuple `(x, y, sample_weight)`.
            gradients: List of the gradients of the trainable variables, `None`
                where there is none.

        Raises:
            ValueError: If the loss depends on a variable without a gradient.
        """
        missing = [
            variable
            for variable, gradient in zip(
                self.trainable_variables, gradients, strict=True
            )
            if gradient is None
        ]
        if not missing:
            return
        with torch.enable_grad():
            result = self._forward(batch, None, [], per_sample=False)
        if not result.loss.requires_grad:
            return
        plain = torch.autograd.grad(
            result.loss, [v.value for v in missing], allow_unused=True
        )
        lost = [
            variable.path
            for variable, gradient in zip(missing, plain, strict=True)
            if gradient is not None
        ]
        if lost:
            raise ValueError(
                f"The gradients of the weights {lost} would be lost. They "
                "reach the loss in a way that a stateless call does not "
                "follow, as those of a `torch.nn.Module` do. Use Keras layers, "
                "or train with `rho=0`."
            )

    @staticmethod
    def _where(condition, tensors, others):
        # `cond` would wait for the device to know the condition.
        return [
            tensor if tensor is other else torch.where(condition, tensor, other)
            for tensor, other in zip(tensors, others, strict=True)
        ]

    @staticmethod
    def _value(variable):
        return variable.value.detach()


def _detached(result):
    """A `ForwardPass` that keeps no graph of operations alive."""

    def detach(value):
        return value.detach() if isinstance(value, torch.Tensor) else value

    return passes.ForwardPass(
        keras.tree.map_structure(detach, result.y_pred),
        detach(result.loss),
        detach(result.sample_losses),
        [detach(value) for value in result.weights],
        [(variable, detach(value)) for variable, value in result.updates],
    )
