"""A training that tells another process what it is doing, to be killed."""

import keras
import numpy as np

import keras_esam
from tests.networks import PAPER
from tests.networks import compile_to_graph
from tests.networks import dense_network
from tests.networks import fit

STEPS_PER_EPOCH = 4
MOMENTS = "trace", "step", "checkpoint"


class TellsModel(keras_esam.ESAMModel):
    """Tells when a step is traced and when the weights are to be saved."""

    tell = print

    def train_step(self, *args):
        self.tell("trace")
        return super().train_step(*args)

    def save_weights(self, *args, **kwargs):
        self.tell("checkpoint")
        super().save_weights(*args, **kwargs)


def train(folder, epochs, connection):
    """Trains, or goes on; the connection gets each moment, then "finished"."""
    keras.utils.set_random_seed(1)
    model = TellsModel(dense_network(), seed=3, **PAPER)
    model._preferred_pool_size = 2
    model.tell = connection.send
    compile_to_graph(model)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16 * STEPS_PER_EPOCH, 8)).astype("float32")
    y = rng.integers(0, 3, len(x))
    steps = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: connection.send("step")
    )
    backup = keras_esam.callbacks.AtomicBackup(folder)
    fit(model, x, y, epochs=epochs, callbacks=[steps, backup])
    connection.send("finished")
