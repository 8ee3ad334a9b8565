"""Training with `fit` on PyTorch."""

import keras
import torch
from keras import ops

from keras_esam import own_calls
from keras_esam import step
from keras_esam.backends import torch_random
from keras_esam.dispatcher import StepDispatcher
from keras_esam.trainers.base_model import BaseModel


class TorchDispatcher(StepDispatcher):
    """Runs one step. `fit` calls it with a list of one batch.

    Args:
        model: The `ESAMModel`.
    """

    _runs_eagerly = True

    def __init__(self, model):
        super().__init__(model)
        if model.steps_per_execution > 1:
            raise ValueError(
                "`steps_per_execution` must be 1 with the PyTorch backend. "
                f"Received: steps_per_execution={model.steps_per_execution}"
            )
        if model.jit_compile:
            raise ValueError(
                "`jit_compile` must be `False` with the PyTorch backend: the "
                "step differentiates within itself, which `torch.compile` does "
                f"not follow. Received: jit_compile={model.jit_compile}"
            )
        self.prepare()

    def __call__(self, data):
        plan = self._begin()
        logs = self._logs(plan, self._run(plan, data[0]))
        self._count(num_steps=1)
        self._model._progress.write()
        return logs

    def _make_function(self, plan, data):
        return self._step(plan)


class TorchModel(BaseModel):
    """Part of `ESAMModel` on PyTorch."""

    _dispatcher = TorchDispatcher

    def _train_step(self, data, plan):
        own_calls.count_step()
        with own_calls.own_calls():
            if plan.is_base_step:
                return self._without_sharpness(
                    keras.Model.train_step(self, data)
                )
            # Copied to the device once, not in each pass.
            data = keras.tree.map_structure(
                ops.convert_to_tensor, data, none_is_leaf=False
            )
            with torch_random.random_numbers(), torch.no_grad():
                return step.train_step(self, plan, data)
