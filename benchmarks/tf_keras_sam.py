"""The SAM that `tf_keras` has, and its bare `fit`.

`tf_keras.models.experimental.SharpnessAwareMinimization` needs the older Keras,
which differs in two ways. Its batch normalization is fused, where Keras 3
composes it of single operations. Its SAM computes the ascent's gradient in
inference mode, without batch statistics and dropout. For a comparison of equal
work there are methods with a composed batch normalization, and one that
computes this gradient in training mode too.
"""

import importlib.util
import inspect

import keras

BARE = "tf_keras bare fit"
SAM = "tf_keras SAM"
BARE_COMPOSED = "tf_keras bare fit, composed BN"
SAM_COMPOSED = "tf_keras SAM, composed BN"
SAM_EQUAL_WORK = "tf_keras SAM, equal work"
NAMES = (BARE, SAM, BARE_COMPOSED, SAM_COMPOSED, SAM_EQUAL_WORK)


def is_available():
    """Whether `tf_keras` is installed and TensorFlow is measured."""
    if keras.backend.backend() != "tensorflow":
        return False
    return importlib.util.find_spec("tf_keras") is not None


def make_model(method, setting):
    """The compiled peer with the same network, optimizer, loss and metrics."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    model = convert(setting.make_network(), fused=method in (BARE, SAM))
    sam = tf_keras.models.experimental.SharpnessAwareMinimization

    class TrainingModeSAM(sam):
        def call(self, inputs):
            return self.model(inputs, training=True)

    if method in (SAM, SAM_COMPOSED):
        model = sam(model, rho=0.05)
    elif method == SAM_EQUAL_WORK:
        model = TrainingModeSAM(model, rho=0.05)
    model.compile(
        tf_keras.optimizers.SGD(0.01, momentum=0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=setting.xla,
    )
    return model


def convert(network, fused=True):
    """The same functional network of `tf_keras` layers, with new weights.

    Its layers are called once. `fused` batch normalization is one operation.
    """
    import tf_keras

    inputs = tf_keras.Input(network.input_shape[1:])
    tensors = {id(network.input): inputs}
    for layer in network.layers[1:]:
        kind = getattr(tf_keras.layers, type(layer).__name__)
        # Initialisers, regularisers and the like are not of the same classes.
        options = {
            key: value
            for key, value in layer.get_config().items()
            if isinstance(value, bool | int | float | str | list | tuple)
            and key in inspect.signature(kind).parameters
        }
        options["dtype"] = layer.dtype_policy.name
        if kind is tf_keras.layers.BatchNormalization:
            options["fused"] = fused
        new = kind(**options)
        called = keras.tree.map_structure(
            lambda tensor: tensors[id(tensor)], layer.input
        )
        is_attention = kind is tf_keras.layers.MultiHeadAttention
        output = new(*called) if is_attention else new(called)
        tensors[id(layer.output)] = output
    return tf_keras.Model(inputs, tensors[id(network.output)])
