"""The train function of `fit` on PyTorch."""

from keras_esam.trainers.dispatcher import StepDispatcher


class TorchDispatcher(StepDispatcher):
    """Is called by `fit` with a list of one batch and runs one step.

    Args:
        model: The `ESAMModel`.
    """

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
        self._prepare()

    def __call__(self, data):
        plan = self._begin()
        logs = self._logs(plan, self._run(plan, data[0]))
        self._count(num_steps=1)
        self._model._progress.write()
        return logs

    @property
    def _runs_eagerly(self):
        return True

    def _make_function(self, plan, data):
        return self._step(plan)
