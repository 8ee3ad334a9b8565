"""The SAM that `tf_keras` has, and its bare `fit`, in a process of their own.

`tf_keras.models.experimental.SharpnessAwareMinimization` needs the older Keras.
The process waits between rounds, so that its rounds alternate with those of the
other methods.
"""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys

from benchmarks import measurement
from benchmarks import networks

BARE = "tf_keras bare fit"
SAM = "tf_keras SAM"
NAMES = (BARE, SAM)


class Peer:
    """Starts the process and asks it for rounds.

    Args:
        setting: `benchmarks.measurement.Setting`.
    """

    def __init__(self, setting):
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.tf_keras_sam",
                json.dumps(dataclasses.asdict(setting)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round(self, method):
        """CPU and wall seconds per step of one round of a method."""
        self._process.stdin.write(f"{method}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of the `tf_keras` peer has ended.")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def is_available():
    return importlib.util.find_spec("tf_keras") is not None


def make_model(method, setting):
    """The compiled peer: same network, optimizer, loss and metrics."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    tf_keras.mixed_precision.set_global_policy(setting.precision)
    model = networks.make_network(
        setting.network, setting.width, setting.depth, api=tf_keras
    )
    if method == SAM:
        model = tf_keras.models.experimental.SharpnessAwareMinimization(
            model, rho=0.05
        )
    model.compile(
        tf_keras.optimizers.SGD(0.01, momentum=0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=setting.xla,
    )
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting")
    setting = measurement.Setting(**json.loads(parser.parse_args().setting))
    import tf_keras

    callback = tf_keras.callbacks.Callback
    models = {method: make_model(method, setting) for method in NAMES}
    for model in models.values():
        measurement.timed_epoch(model, setting, setting.steps, callback)
    for line in sys.stdin:
        seconds = measurement.timed_epoch(
            models[line.strip()], setting, setting.steps, callback
        )
        print(json.dumps([s / setting.steps for s in seconds]), flush=True)


if __name__ == "__main__":
    main()
