"""Pipelines under `MirroredStrategy`, for `test_distribution`.

Usage: python -m tests.data.distribution_run FILE

Trains on two logical CPUs. `FILE` gets the batches of two epochs that the
replicas saw together, and the losses.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import keras_esam
from keras_esam import data


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {}
    with strategy.scope():
        counter = keras_esam.callbacks.EpochCounter()
        train = data.digits("train", 50, seed=4, epoch=counter.epoch)
        counting = data.digits("train", 50, seed=4)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(10, "softmax", kernel_initializer="zeros"),
            ]
        )
        model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(
        train, epochs=2, initial_epoch=1, verbose=0, callbacks=[counter]
    )
    results["loss"] = history.history["loss"]
    for name, dataset in (("variable", train), ("counter", counting)):
        distributed = strategy.experimental_distribute_dataset(dataset)
        for epoch in range(2):
            counter.epoch.assign(epoch)
            batches = [
                strategy.experimental_local_results(images)
                for images, _ in distributed
            ]
            results[f"{name}-{epoch}"] = np.stack(
                [np.concatenate(parts) for parts in batches]
            )
            results["sizes"] = [len(part) for part in batches[0]]
    np.savez(sys.argv[1], **results)


if __name__ == "__main__":
    main()
