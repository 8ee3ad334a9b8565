"""Derivatives with `tf.GradientTape`.

`tf.nn.moments`, from which Keras' normalization layers have the variance, stops
the gradient at the mean. That does not change the first derivative, but the
second one, without a word: that of the variance lacks `-2 / n**2`. Products
with the Hessian are therefore traced with moments that are differentiable
twice. Their values are the same, so other threads may use them meanwhile.
"""

import contextlib
import threading

import tensorflow as tf

from keras_esam.trainers import tensorflow_gradients
from keras_esam.trainers import tensorflow_passes
from keras_esam.trainers import tensorflow_random
from keras_esam.trainers.backward_scope import BackwardScope
from keras_esam.trainers.tensorflow_functions import no_retracing_warning

value = tf.convert_to_tensor
check_gradients = tensorflow_gradients.check_gradients


def compiled(function):
    """The function as a graph, one for each of its arguments' shapes."""
    graphs = tf.function(function, autograph=False)

    def call(*args):
        with no_retracing_warning():
            return graphs(*args)

    return call


def forward(model, batch, weights, state, training):
    """See `passes.forward`."""
    with tensorflow_passes.recorded_if(False):
        result = tensorflow_passes.forward(
            model, batch, weights, state, per_sample=False, training=training
        )
    if training:
        tensorflow_random.warn_of_random_operations()
    return result


def value_and_gradients(function, tensors):
    """See `keras_esam.analysis.derivatives`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        result, others = function(tensors)
    gradients = tape.gradient(result, tensors)
    return result, others, tensorflow_gradients.dense(gradients)


def hessian_vector_product(function, tensors, vectors):
    """The gradient of the gradient's product with the vectors."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        with _twice_differentiable_moments():
            result, _, gradients = value_and_gradients(function, tensors)
        slope = tf.zeros((), result.dtype)
        for gradient, vector in zip(gradients, vectors, strict=True):
            if gradient is not None:
                product = tf.reduce_sum(gradient * vector)
                slope += tf.cast(product, slope.dtype)
    products = tape.gradient(
        slope, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return tensorflow_gradients.dense(products)


def backward_scope(model):
    """In it no weight is to be read, see `BackwardScope`."""
    return BackwardScope(model.trainable_variables)


_lock = threading.Lock()


@contextlib.contextmanager
def _twice_differentiable_moments():
    """Context in which `tf.nn.moments` has the second derivatives too."""
    with _lock:
        replaced = tf.nn.moments
        tf.nn.moments = _moments
        try:
            yield
        finally:
            tf.nn.moments = replaced


def _moments(x, axes, shift=None, keepdims=False, name=None):
    """As `tf.nn.moments`: mean and variance, in float32 within."""
    del shift, name  # TensorFlow ignores the shift too.
    values = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
    mean = tf.reduce_mean(values, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(values - mean), axes, keepdims=keepdims)
    if not keepdims:
        mean = tf.squeeze(mean, axes)
    return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)
