"""Warns of TensorFlow's own random numbers, which differ between passes.

Keras' random numbers are functions of a seed, which is a variable, and all
passes start from its value. `tf.random` and `tf.random.Generator` draw from a
state of the operation or of the process.
"""

import warnings

import tensorflow as tf

# Kinds of stateful operations that draw random numbers. Keras' are stateless.
_RANDOM = (
    "FractionalAvgPool",
    "FractionalMaxPool",
    "Multinomial",
    "NonDeterministicInts",
    "ParameterizedTruncatedNormal",
    "Random",
    "Rng",
    "Stateful",
    "TruncatedNormal",
)
_CALLS = ("Case", "If", "StatefulPartitionedCall", "While")
_SAMPLERS = ("CandidateSampler", "SampleDistortedBoundingBoxV2")


def check_random_numbers():
    """Warns if the function being traced draws such random numbers."""
    if tf.executing_eagerly():
        return
    graph = tf.compat.v1.get_default_graph()
    operations = [(op.type, op.name) for op in graph.get_operations()]
    if any(kind in _CALLS for kind, _ in operations):
        # Only these have functions in the graph that may draw.
        for function in graph.as_graph_def().library.function:
            operations += [(node.op, node.name) for node in function.node_def]
    names = [
        name
        for kind, name in operations
        if (kind.startswith(_RANDOM) or kind.endswith(_SAMPLERS))
        and kind not in _CALLS
    ]
    if names:
        warnings.warn(
            "TensorFlow's own random numbers differ between the passes of a "
            "sharpness-aware step, so `sharpness` and the selection of samples "
            "have noise in them. In layers and losses draw with `keras.random` "
            "and a `keras.random.SeedGenerator` instead of `tf.random` or "
            f"`tf.nn.dropout`. Received: operation {names[0]!r}",
            stacklevel=2,
        )
