"""The same random numbers in all passes of a step.

On PyTorch a Keras layer without a seed, such as `Dropout(0.5)`, draws from
PyTorch's global generators, whose state is no Keras variable.
"""

import contextlib

import torch

from keras_esam.trainers.shared_operations import SharedOperations


class SharedTensors(SharedOperations):
    """`SharedOperations` without those that draw from the global generators."""

    @staticmethod
    def _random_state():
        return [
            None if state is None else state.numpy().tobytes()
            for state in _get()
        ]


class RandomState:
    """State of PyTorch's global generators at the beginning of a step."""

    def __init__(self):
        self._at_start = self._before = _get()
        self._after = None

    @contextlib.contextmanager
    def replayed(self):
        """Context of a pass, which draws the same numbers as the others."""
        _set(self._before)
        yield
        if self._after is None:
            self._after = _get()

    def begin_micro_batch(self, start):
        """Lets the passes of a micro-batch draw numbers of their own.

        Args:
            start: Integer, its first sample. All but the first micro-batch go
                on from where the one before has left the generators.
        """
        self._before = self._after if start else self._at_start
        self._after = None

    def finish(self):
        """Lets the generators go on from where the first pass left them."""
        _set(self._before if self._after is None else self._after)


def _get():
    on_gpu = None
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        on_gpu = torch.cuda.get_rng_state()
    return torch.get_rng_state(), on_gpu


def _set(state):
    on_cpu, on_gpu = state
    torch.set_rng_state(on_cpu)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu)
