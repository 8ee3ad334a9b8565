"""The SAM that `tf_keras` has, and its bare `fit`.

`tf_keras.models.experimental.SharpnessAwareMinimization` needs the older Keras,
which does two things otherwise: it has a fused batch normalization, where Keras
3 composes it of single operations, and its SAM takes the ascent's gradient in
inference mode, without batch statistics and dropout. For a comparison of the
same work there are methods that compose it, and one that computes that gradient
in training mode too.
"""

import functools
import importlib.metadata
import importlib.util
import types

import keras

from benchmarks import networks

BARE = "tf_keras bare fit"
SAM = "tf_keras SAM"
BARE_COMPOSED = "tf_keras bare fit, composed BN"
SAM_COMPOSED = "tf_keras SAM, composed BN"
SAM_EQUAL_WORK = "tf_keras SAM, equal work"
NAMES = (BARE, SAM, BARE_COMPOSED, SAM_COMPOSED, SAM_EQUAL_WORK)


def is_available():
    """Whether `tf_keras` is installed, and TensorFlow is what is measured."""
    if keras.backend.backend() != "tensorflow":
        return False
    return importlib.util.find_spec("tf_keras") is not None


def version():
    """Version of `tf_keras`, or `None` if it is not installed."""
    return importlib.metadata.version("tf_keras") if is_available() else None


def callback_class():
    """The `Callback` that `fit` of these models takes."""
    import tf_keras

    return tf_keras.callbacks.Callback


def make_model(method, setting):
    """The compiled peer: same network, optimizer, loss and metrics.

    Args:
        method: String, one of `NAMES`.
        setting: `benchmarks.measurement.Setting`.

    Returns:
        A `tf_keras.Model`.
    """
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    tf_keras.mixed_precision.set_global_policy(setting.precision)
    api = tf_keras
    if method in (BARE_COMPOSED, SAM_COMPOSED, SAM_EQUAL_WORK):
        api = _with_composed_batch_normalization(tf_keras)
    model = networks.make_network(
        setting.network, setting.width, setting.depth, api=api
    )
    if method in (SAM, SAM_COMPOSED):
        model = _sam_class()(model, rho=0.05)
    elif method == SAM_EQUAL_WORK:
        model = _training_mode(_sam_class())(model, rho=0.05)
    model.compile(
        tf_keras.optimizers.SGD(0.01, momentum=0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=setting.xla,
    )
    return model


def _sam_class():
    import tf_keras

    return tf_keras.models.experimental.SharpnessAwareMinimization


def _training_mode(sam):
    class TrainingModeSAM(sam):
        def call(self, inputs):
            return self.model(inputs, training=True)

    return TrainingModeSAM


def _with_composed_batch_normalization(api):
    layers = types.SimpleNamespace(**vars(api.layers))
    layers.BatchNormalization = functools.partial(
        api.layers.BatchNormalization, fused=False
    )
    return types.SimpleNamespace(
        Input=api.Input, Model=api.Model, layers=layers
    )
