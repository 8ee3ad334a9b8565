"""The SAM that `tf_keras` has, and its bare `fit`, in a process of their own.

`tf_keras.models.experimental.SharpnessAwareMinimization` needs the older Keras.
The process waits between rounds, so that its rounds alternate with those of the
other methods.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys
import types

from benchmarks import measurement
from benchmarks import networks

BARE = "tf_keras bare fit"
SAM = "tf_keras SAM"
# With batch normalization composed of single operations, as in Keras 3.
BARE_COMPOSED = "tf_keras bare fit, composed BN"
SAM_COMPOSED = "tf_keras SAM, composed BN"
NAMES = (BARE, SAM, BARE_COMPOSED, SAM_COMPOSED)


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
    api = tf_keras
    if method in (BARE_COMPOSED, SAM_COMPOSED):
        api = _with_composed_batch_normalization(tf_keras)
    model = networks.make_network(
        setting.network, setting.width, setting.depth, api=api
    )
    if method in (SAM, SAM_COMPOSED):
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


def _with_composed_batch_normalization(api):
    layers = types.SimpleNamespace(**vars(api.layers))
    layers.BatchNormalization = functools.partial(
        api.layers.BatchNormalization, fused=False
    )
    return types.SimpleNamespace(
        Input=api.Input, Model=api.Model, layers=layers
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting")
    setting = measurement.Setting(**json.loads(parser.parse_args().setting))
    import tf_keras

    callback = tf_keras.callbacks.Callback
    models = {}
    for line in sys.stdin:
        method = line.strip()
        if method not in models:
            models[method] = make_model(method, setting)
            measurement.timed_epoch(
                models[method], setting, setting.steps, callback
            )
        seconds = measurement.timed_epoch(
            models[method], setting, setting.steps, callback
        )
        print(json.dumps([s / setting.steps for s in seconds]), flush=True)


if __name__ == "__main__":
    main()
