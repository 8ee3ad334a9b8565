"""Trains on several machines with Ray Train, and survives failures.

Command:   pip install ".[tensorflow,examples,ray]"
           python -m examples.train_ray --num-workers 2
Result:    runs/ray/network.keras, and runs/ray/backup with the logs of all
           epochs
Hardware:  any Ray cluster, on which all machines see `--out`; without one, this
           machine
Time:      1 to 2 minutes on 2 CPU cores

Ray starts the workers, tells each its place in the cluster, and starts all of
them again if one has died. They train under `MultiWorkerMirroredStrategy`.
`AtomicBackup` then resumes after the last finished epoch, so the run ends with
the weights of an uninterrupted one.
"""

import argparse
import pathlib

from keras_esam.extras import requires


def train(config):
    """What each worker runs. TensorFlow is imported here, not by Ray's driver.

    Args:
        config: Dict of `epochs`, `batch_size` (of all workers together), and
            `out`, the absolute path of a folder that all workers share.
    """
    import tensorflow as tf

    # Before TensorFlow computes anything.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    import keras

    import keras_esam
    from keras_esam import data

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "KERAS_BACKEND must be tensorflow for these workers. "
            f"Received: {keras.backend.backend()}"
        )
    keras.utils.set_random_seed(1)
    counter = keras_esam.callbacks.EpochCounter()
    batch_size = config["batch_size"]
    digits = data.digits("train", batch_size, seed=1, epoch=counter.epoch)
    test = data.digits("test", batch_size)
    with strategy.scope():
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        model = keras_esam.ESAMModel(network, rho=0.05, seed=1)
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    out = pathlib.Path(config["out"])
    backup = keras_esam.callbacks.AtomicBackup(out / "backup")
    model.fit(
        digits,
        epochs=config["epochs"],
        validation_data=test,
        shuffle=False,  # The pipeline does it.
        verbose=2 if strategy.extended.should_checkpoint else 0,
        callbacks=[counter, backup],
    )
    if strategy.extended.should_checkpoint:
        model.model.save(out / "network.keras")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--num-workers", type=int, default=2, help="processes")
    option("--gpu", action="store_true", help="one GPU for each worker")
    option("--epochs", type=int, default=10, help="of the training")
    option("--batch-size", type=int, default=64, help="of all workers together")
    option("--max-failures", type=int, default=5, help="restarts")
    option("--out", type=pathlib.Path, default="runs/ray", help="shared folder")
    arguments = parser.parse_args(arguments)

    with requires("ray"):
        from ray.train import FailureConfig
        from ray.train import RunConfig
        from ray.train import ScalingConfig
        from ray.train.tensorflow import TensorflowTrainer

    out = arguments.out.absolute()
    TensorflowTrainer(
        train,
        train_loop_config={
            "epochs": arguments.epochs,
            "batch_size": arguments.batch_size,
            "out": str(out),
        },
        scaling_config=ScalingConfig(
            num_workers=arguments.num_workers, use_gpu=arguments.gpu
        ),
        run_config=RunConfig(
            storage_path=str(out / "ray"),
            failure_config=FailureConfig(max_failures=arguments.max_failures),
        ),
    ).fit()


if __name__ == "__main__":
    main()
