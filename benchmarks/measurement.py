"""Time and memory of training steps through `fit`.

Time is that from the first to the last batch of an epoch, when the device has
done it: when `fit` ends, tf.data can hold the destruction of its iterator for
seconds. Process CPU time is steadier than wall time where cores are shared; on
an accelerator the wall time counts.
"""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import time

import keras
import numpy as np

import keras_esam
from benchmarks import tf_keras_sam
from benchmarks.engines import BACKEND
from benchmarks.engines import engine
from benchmarks.methods import METHODS
from benchmarks.networks import INPUT_SHAPE
from benchmarks.networks import NETWORKS
from benchmarks.networks import NUM_CLASSES
from benchmarks.networks import default_sizes
from benchmarks.networks import make_network

BARE = "bare fit"
PRECISIONS = ["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured: network, sizes and compilation."""

    network: str
    width: int
    depth: int
    batch_size: int
    steps: int
    xla: bool
    precision: str


def add_setting_options(parser):
    """The options of a benchmark from which `make_setting` makes a setting."""
    option = parser.add_argument
    option("--network", choices=NETWORKS, default="resnet18")
    option("--width", type=positive, help="see `benchmarks.networks`")
    option("--depth", type=positive, help="see `benchmarks.networks`")
    option("--batch-size", type=positive, default=64)
    option("--steps", type=positive, default=5, help="at least, in a round")
    option("--xla", action="store_true", help="compile with `jit_compile`")
    option("--precision", choices=PRECISIONS, default="float32")


def positive(text):
    """Integer of at least 1, for `argparse`."""
    value = int(text)
    if value < 1:
        raise ValueError(f"It must be at least 1. Received: {text}")
    return value


def make_setting(arguments):
    """The `Setting` of the arguments, with the default sizes of the network."""
    given = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(Setting)
        if getattr(arguments, field.name) is not None
    }
    if BACKEND == "jax":
        given["xla"] = True  # What is not compiled there is of no interest.
    return Setting(**{**default_sizes(arguments.network), **given})


def make_model(method, setting, **kwargs):
    """The compiled model of a method, or the bare network.

    Args:
        method: String.
        setting: `Setting`.
        **kwargs: More arguments of `ESAMModel`.

    Returns:
        A compiled model.
    """
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(setting.precision)
    model = make_network(setting.network, setting.width, setting.depth)
    if method != BARE:
        model = keras_esam.ESAMModel(model, seed=1, **METHODS[method], **kwargs)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=setting.xla,
    )
    return model


def make_batch(batch_size):
    """Random images, shape `(batch_size, 32, 32, 3)`, and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, *INPUT_SHAPE)).astype("float32")
    return x, rng.integers(0, NUM_CLASSES, batch_size).astype("int32")


class EpochTimer:
    """CPU and wall time from the first to the last batch of an epoch.

    Args:
        callback: Class `Callback` of the Keras that trains.
    """

    def __init__(self, callback):
        self.callback = callback()
        self.callback.on_train_batch_begin = self._begin
        self.callback.on_train_batch_end = self._end
        # Or Keras, and `tf_keras`, wait for the device after every batch.
        self.callback.async_safe = True
        self.callback._supports_tf_logs = True

    def _begin(self, batch, logs=None):
        if batch == 0:
            self.start = time.process_time(), time.perf_counter()

    def _end(self, batch, logs=None):
        if batch == self.callback.params["steps"] - 1:
            float(logs["loss"])  # waits for the device
            self.end = time.process_time(), time.perf_counter()

    @property
    def seconds(self):
        """List of the CPU seconds and the wall seconds."""
        return [b - a for a, b in zip(self.start, self.end, strict=True)]


def timed_epoch(model, setting, steps, data=None):
    """CPU and wall seconds of `steps` batches through `fit`.

    Args:
        model: Compiled model.
        setting: `Setting`.
        steps: Integer.
        data: Optional, of the steps, instead of one batch again and again.

    Returns:
        List of the CPU seconds and the wall seconds.
    """
    if data is None:
        data = engine.make_data(make_batch(setting.batch_size), steps)
    is_ours = isinstance(model, keras.Model)
    timer = EpochTimer(
        keras.callbacks.Callback if is_ours else tf_keras_sam.callback_class()
    )
    model.fit(
        data,
        shuffle=False,
        verbose=0,
        callbacks=[timer.callback],
    )
    return timer.seconds


def steps_per_round(model, steps):
    """At least `steps`, and every compiled step as often as in training."""
    period = getattr(model, "num_subsets", 1) * getattr(model, "interval", 1)
    return -(-steps // period) * period


def resident_memory(key):
    """MiB of the resident set, now (`VmRSS`) or at its peak (`VmHWM`)."""
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}. It needs Linux.")


def write_json(value, path):
    """Writes a file at once or, if interrupted, not at all."""
    write_text(json.dumps(value, indent=1) + "\n", path)


def write_text(text, path):
    """Writes a file at once or, if interrupted, not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def describe_machine():
    """Dict of the machine and the versions of what ran on it."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1] for line in lines if "model name" in line]
    return {
        "platform": platform.platform(),
        "processor": names[0].strip() if names else platform.machine(),
        "logical_cpus": len(names),
        "python": platform.python_version(),
        "keras_esam": keras_esam.__version__,
        "commit": commit(),
        "keras": keras.__version__,
        "backend": BACKEND,
        "devices": engine.devices(),
        "tf_keras": tf_keras_sam.version(),
    }


def commit():
    """Git's short name of the package's commit, `None` without a checkout."""
    root = pathlib.Path(keras_esam.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", root, "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True
        )
    except OSError:  # without git
        return None
    return result.stdout.strip() or None
