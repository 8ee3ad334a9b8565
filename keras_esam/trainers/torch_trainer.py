"""The training step of ESAM with `torch.autograd.grad`.

The passes work on detached values of the variables. Those that a gradient is
taken of are leaves that require one, and PyTorch records what depends on them
only: of a subset from some layer on nothing below that layer.
"""

import keras
import torch
from keras import ops

from keras_esam.trainers import own_calls
from keras_esam.trainers import passes
from keras_esam.trainers import torch_gradients
from keras_esam.trainers.esam_step import ESAMStep
from keras_esam.trainers.torch_dispatcher import TorchDispatcher
from keras_esam.trainers.torch_random import RandomState
from keras_esam.trainers.torch_random import SharedTensors


class TorchTrainer(ESAMStep):
    """Training step and train function of `ESAMModel` on PyTorch."""

    _dispatcher = TorchDispatcher
    _shared_operations = SharedTensors

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
            return self._without_sharpness(super().train_step(data))
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
            return super()._forward(batch, weights, state, **kwargs)

    def _own_random_state(self, state, start):
        self._random_state.begin_micro_batch(start)
        return super()._own_random_state(state, start)

    def _gradients(self, batch, weights, state, sources, valid=None, **kwargs):
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
                batch, weights, state, on_assign=on_assign, **kwargs
            )
            loss = passes.scaled_loss(self, result.loss, valid)
        leaves = [result.weights[index] for index in sources]
        if not leaves or not loss.requires_grad:
            return _detached(result), [None] * len(leaves)
        with torch_gradients.backward_scope(self):
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return _detached(result), list(gradients)

    def _check_gradients(self, batch, gradients):
        torch_gradients.check_gradients(self, batch, gradients, self._forward)

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
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return value
        detached = value.detach()
        mask = keras.src.backend.get_keras_mask(value)
        if mask is not None:
            keras.src.backend.set_keras_mask(detached, mask)
        return detached

    return passes.ForwardPass(
        keras.tree.map_structure(detach, result.y_pred),
        detach(result.loss),
        detach(result.sample_losses),
        [detach(value) for value in result.weights],
        [(variable, detach(value)) for variable, value in result.updates],
    )
