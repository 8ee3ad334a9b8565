"""What grows with the number of steps: nothing."""

import gc
import os
import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_esam
from tests.backends import tensorflow_only
from tests.networks import PAPER
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

pytestmark = tensorflow_only
STEPS_PER_EPOCH = 50
# By then each subset has had its turn, with the smaller last batch too.
WARM_UP_EPOCHS = 2


class Traced(keras_esam.ESAMModel):
    """Counts how often its step runs as Python."""

    num_traces = 0

    def train_step(self, *args):
        self.num_traces += 1
        return super().train_step(*args)


class Growth(keras.callbacks.Callback):
    """Counts after each epoch what a leak would add to, and bytes of memory."""

    def on_train_begin(self, logs=None):
        self.counts, self.resident = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(
            {
                **count_objects(),
                "steps": len(self.model.train_function._functions),
                "traces": self.model.num_traces,
            }
        )
        self.resident.append(resident_bytes())


def count_objects():
    import tensorflow as tf

    gc.collect()
    types = [type(entry) for entry in gc.get_objects()]
    kinds = {
        "tensors": tf.Tensor,
        "variables": tf.Variable,
        "graphs": tf.Graph,
        "Keras variables": keras.Variable,
    }
    return {
        name: sum(issubclass(entry, kind) for entry in types)
        for name, kind in kinds.items()
    }


def resident_bytes():
    if sys.platform != "linux":
        return 0
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def train(num_steps):
    # The last batch of an epoch is smaller.
    x, y = dense_data(16 * STEPS_PER_EPOCH - 8)
    model = compile_to_graph(Traced(dense_network(), seed=1, **PAPER))
    growth = Growth()
    epochs = num_steps // STEPS_PER_EPOCH
    fit(model, x, y, epochs=epochs, callbacks=[growth])
    assert model._progress.num_steps == num_steps
    return growth


@pytest.mark.parametrize(
    "num_steps", [250, pytest.param(20_000, marks=pytest.mark.slow)]
)
def test_nothing_grows_after_the_first_round_of_subsets(num_steps):
    growth = train(num_steps)
    after = growth.counts[WARM_UP_EPOCHS - 1]
    assert after["steps"] == 3
    assert after["traces"] <= 10
    assert after["variables"] > 0 and after["graphs"] > 0
    for counts in growth.counts[WARM_UP_EPOCHS:]:
        assert counts == after
    if num_steps < 20_000:
        return
    resident = growth.resident[len(growth.resident) // 4 :]
    steps = np.arange(len(resident)) * STEPS_PER_EPOCH
    slope = np.polyfit(steps, resident, 1)[0]
    print(f"{slope:.1f} bytes a step, {resident[0]} to {resident[-1]} bytes")
    # A leak of one tensor or Python object in each step would be more.
    assert slope < 100
