"""Time and memory of training steps through `fit`.

Time runs from the first to the last batch of an epoch, until the device has
finished it: when `fit` ends, tf.data can delay the destruction of its iterator
for seconds. Process CPU time is steadier than wall time if cores are shared. On
an accelerator the wall time counts.
"""

import dataclasses
import multiprocessing
import pathlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor

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
from benchmarks.operations import steps_per_round

BARE = "bare fit"
ALL = [BARE, *METHODS, *tf_keras_sam.NAMES]
PRECISIONS = ["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Settings of a measurement: network, sizes and compilation."""

    network: str
    width: int
    depth: int
    batch_size: int
    steps: int
    xla: bool
    precision: str

    def make_network(self):
        keras.config.set_dtype_policy(self.precision)
        return NETWORKS[self.network](width=self.width, depth=self.depth)


def add_options(parser):
    """Adds the methods, and the options that `make_setting` reads."""
    option = parser.add_argument
    option("--methods", nargs="+", choices=ALL, metavar="METHOD", help=str(ALL))
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
        given["xla"] = True  # Uncompiled code is of no interest there.
    return Setting(**{**default_sizes(arguments.network), **given})


def choose_methods(names):
    """Methods in the order of `ALL`, with SAM, without missing packages."""
    methods = [m for m in ALL if m == "SAM" or m in (names or ALL)]
    if not tf_keras_sam.is_available():
        progress("Without tf_keras and TensorFlow, so without its methods.")
        methods = [m for m in methods if m not in tf_keras_sam.NAMES]
    return methods


def make_models(methods, setting):
    """Dict of method to its compiled model; none has trained."""
    # All before the first use: a new seed clears TensorFlow's caches.
    return {method: make_model(method, setting) for method in methods}


def make_model(method, setting):
    """The compiled model of a method, the bare network, or the peer."""
    if method in tf_keras_sam.NAMES:
        return tf_keras_sam.make_model(method, setting)
    keras.utils.set_random_seed(1)
    model = setting.make_network()
    if method != BARE:
        model = keras_esam.ESAMModel(model, seed=1, **METHODS[method])
    return compile_model(model, jit_compile=setting.xla)


def compile_model(model, **kwargs):
    """Compiles a network of 10 classes for measurements, and returns it."""
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def make_batch(batch_size, shape=INPUT_SHAPE):
    """Random images, shape `(batch_size, *shape)`, and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, *shape)).astype("float32")
    return x, rng.integers(0, NUM_CLASSES, batch_size).astype("int32")


def clocks():
    """CPU and wall seconds, as an array."""
    return np.array([time.process_time(), time.perf_counter()])


def timed_epoch(model, data, steps):
    """Array of the CPU and wall seconds of `steps` batches through `fit`."""
    callbacks = keras.callbacks
    if not isinstance(model, keras.Model):
        import tf_keras

        callbacks = tf_keras.callbacks
    times = []

    def begin(batch, logs=None):
        if batch == 0:
            times.append(clocks())

    def end(batch, logs):
        if batch == steps - 1:
            float(logs["loss"])  # waits for the device
            times.append(clocks())

    timer = callbacks.LambdaCallback(
        on_train_batch_begin=begin, on_train_batch_end=end
    )
    timer.async_safe = True  # or Keras waits for the device after every batch
    timer._supports_tf_logs = True  # the same for `tf_keras`
    model.fit(
        data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[timer]
    )
    return times[1] - times[0]


def timed_steps(model, setting, at_least=None):
    """CPU and wall seconds of a round of steps, and their number."""
    steps = steps_per_round(model, at_least or setting.steps)
    data = engine.make_data(make_batch(setting.batch_size))
    return timed_epoch(model, data, steps), steps


def in_turn(measure, models, rounds):
    """Dict of name to a list, one entry a round, of the results of `measure`
    for the model of that name."""
    samples = {name: [] for name in models}
    for index in range(rounds):
        # Alternating order, so that no method always follows the same one.
        for name in list(models)[:: 1 if index % 2 else -1]:
            samples[name].append(measure(models[name]))
        progress(f"round {index + 1} of {rounds}")
    return samples


def peak_memory(method, setting):
    """MiB of `_peak_of` in a new process, since a peak never falls."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(_peak_of, method, setting).result()


def _peak_of(method, setting):
    """Peak MiB of a training: of the accelerator, or of the resident set. The
    latter includes the compiled steps, one per subset for ESAM."""
    model = make_model(method, setting)
    for _ in range(2):
        timed_steps(model, setting)
    on_device = engine.device_memory()
    if on_device is not None:
        return on_device / 2**20
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM. It needs Linux.")


def progress(message):
    print(message, file=sys.stderr, flush=True)
