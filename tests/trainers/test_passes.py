"""Layers that reach the weights past a stateless scope, or assign them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.backends import tensorflow_only
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit

pytestmark = tensorflow_only
X, Y = dense_data(48)


class WrappedProduct(keras.layers.Layer):
    """Dense layer whose product is computed in a wrapped function."""

    def __init__(self, units, wrapper):
        super().__init__()
        self.units = units
        self.product = wrapper(lambda x: keras.ops.relu(x @ self.kernel))

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))

    def call(self, inputs):
        return self.product(inputs)


def network(wrapper, batch_norm=True):
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((8,)),
        WrappedProduct(16, wrapper),
        keras.layers.BatchNormalization() if batch_norm else None,
        WrappedProduct(16, wrapper),
        keras.layers.Dense(3, activation="softmax"),
    ]
    return keras.Sequential([layer for layer in stack if layer is not None])


@pytest.mark.parametrize(
    ("run_eagerly", "called_before", "penalty", "micro_batch_size"),
    [
        (False, True, "l2", None),
        (True, False, None, 8),
    ],
)
def test_weights_in_a_tf_function_are_an_error(
    run_eagerly, called_before, penalty, micro_batch_size
):
    """Also those that have a part of their gradient in another way."""
    model = network(tf.function)
    for layer in model.layers[::2]:
        layer.kernel.regularizer = keras.regularizers.get(penalty)
    if called_before:
        model(X[:16])
    before = all_values(model)
    model = esam(model, micro_batch_size=micro_batch_size)
    compile_model(model, run_eagerly=run_eagerly)
    with pytest.raises(ValueError, match="Remove the `tf.function`"):
        fit(model, X, Y)
    assert_identical(before, all_values(model.model))


def test_random_numbers_in_a_tf_function_are_an_error():
    class Masked(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5)
            self.masked = tf.function(self.dropout)

        def call(self, x):
            return self.masked(x, training=True)

    stack = [keras.Input((8,)), Masked(), keras.layers.Dense(3, "softmax")]
    model = compile_to_graph(esam(keras.Sequential(stack)))
    with pytest.raises(ValueError, match="Remove the `tf.function`"):
        fit(model, X, Y)


def test_assignment_within_control_flow_is_an_error():
    class Counting(keras.layers.Layer):
        def build(self, input_shape):
            self.count = self.add_weight(
                shape=(), initializer="zeros", trainable=False
            )

        def counted(self, x):
            self.count.assign(self.count + 1)
            return x + 0

        def call(self, x):
            is_large = tf.reduce_sum(x) > 0
            return tf.cond(is_large, lambda: self.counted(x), lambda: x + 0)

    stack = [keras.Input((8,)), Counting(), keras.layers.Dense(3, "softmax")]
    model = compile_to_graph(esam(keras.Sequential(stack)))
    with pytest.raises(ValueError, match="is assigned within a `tf.function`"):
        fit(model, X, Y)


class Branches(keras.layers.Layer):
    """Has a Python condition on a tensor, which AutoGraph translates."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    @tf.function
    def branch(self, x):
        if tf.reduce_sum(x) > -1e9:
            return 2 * x
        return x

    def call(self, inputs):
        return self.branch(inputs) * self.scale


def test_tf_function_without_weights_in_it():
    """It trains, and the statistics move once."""
    values = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        norm = keras.layers.BatchNormalization()
        stack = [keras.Input((8,)), norm, Branches(), keras.layers.Dense(3)]
        network = model = keras.Sequential(stack)
        if wrap:
            model = esam(network, rho=1e-30, beta=1, gamma=1)
        fit(compile_to_graph(model), X, Y)
        values.append(all_values(network))
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("run_eagerly", "batch_norm", "message"),
    [
        (True, True, "is read when gradients are computed.*`keras.remat`"),
        # Without other weights below, nothing is computed again.
        (False, False, r"\['.*', '.*'\] would be lost.*`keras.remat`"),
    ],
)
def test_weights_in_remat_are_an_error(run_eagerly, batch_norm, message):
    model = esam(network(keras.remat, batch_norm))
    compile_model(model, run_eagerly=run_eagerly)
    before = all_values(model)
    with pytest.raises(ValueError, match=message):
        fit(model, X, Y)
    assert_identical(before, all_values(model))
    model.rho = 0
    fit(model, X, Y)


class SharedWithRemat(keras.layers.Layer):
    """Uses its weight inside of a `keras.remat` and outside of it too."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 3))
        self.product = keras.remat(lambda x: keras.ops.tanh(x @ self.kernel))

    def call(self, inputs):
        return self.product(inputs) + inputs @ self.kernel


def test_weight_that_is_only_partly_in_remat_is_an_error():
    stack = [keras.Input((8,)), keras.layers.Dense(8), SharedWithRemat()]
    model = esam(keras.Sequential(stack), beta=1)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"is read when gradients .*remat"):
        fit(model, X, X[:, :3])


class RematDropout(keras.layers.Layer):
    """Dropout that is computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.dropout = keras.layers.Dropout(0.5)
        self.drop = keras.remat(lambda x: x * self.dropout(x, training=True))

    def call(self, inputs):
        return self.drop(inputs)


def test_remat_without_weights_uses_the_masks_of_the_forward_pass():
    """The gradient of a sum over `x * mask(x)` is 0 where the mask is."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((64,)), keras.layers.Rescaling(1.0), RematDropout()]
    outputs = []

    class Scale(keras.layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight(
                shape=input_shape[-1:], initializer="ones"
            )

        def call(self, inputs):
            return inputs * self.scale

    class Tap(keras.layers.Layer):
        def call(self, inputs):
            if isinstance(inputs, tf.__internal__.EagerTensor):
                outputs.append(inputs.numpy())
            return inputs

    stack[1] = Scale()
    model = esam(keras.Sequential([*stack, Tap()]), rho=1e-30, beta=1, gamma=1)
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: p, run_eagerly=True)
    x = np.ones((1, 64), "float32")
    model.fit(x, x, verbose=0)
    changed = model.get_weights()[0] != 1
    np.testing.assert_array_equal(changed, outputs[0][0] != 0)
    assert 10 < changed.sum() < 54


def test_variable_without_influence_is_no_error():
    class Unused(keras.layers.Layer):
        def build(self, input_shape):
            self.unused = self.add_weight(shape=(3,))

        def call(self, inputs):
            return inputs

    stack = [keras.Input((8,)), Unused(), keras.layers.Dense(3)]
    model = esam(keras.Sequential(stack), beta=1)
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        fit(model, X, X[:, :3])


def assigning_network():
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(16, activation="relu")
    layer = keras.layers.SpectralNormalization(dense)
    head = keras.layers.Dense(3, activation="softmax")
    return keras.Sequential([keras.Input((8,)), layer, head])


def test_weights_that_a_layer_assigns_train_as_in_keras():
    """With a perturbation of no size the step is that of the bare model."""
    bare = compile_model(assigning_network())
    fit(bare, X, Y)
    model = esam(assigning_network(), rho=1e-30, gamma=1)
    fit(compile_model(model), X, Y)
    for a, b in zip(all_values(bare), all_values(model.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_weights_that_a_layer_assigns_are_perturbed_from_their_new_value():
    """One step by hand: `w` becomes `2 w` in each pass, and `loss = w^2`."""

    class Doubles(keras.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs, training=False):
            if training:
                self.w.assign(2 * self.w)
            return inputs * self.w

    stack = keras.Sequential([keras.Input((1,)), Doubles()])
    model = esam(stack, rho=0.5, beta=1, gamma=1)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(np.ones((4, 1)), np.zeros((4, 1)), verbose=0)
    # Clean pass at 2, eps = 0.5; second pass at 2 * 2.5, gradient 2 * 5.
    np.testing.assert_allclose(model.get_weights()[0], 2 - 0.01 * 10, rtol=1e-6)


@pytest.mark.parametrize("wrapped_part", ["loss", "compute_loss"])
def test_weights_in_a_loss_in_a_tf_function_are_an_error(wrapped_part):
    """The penalty would be that of the clean weights."""
    network = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(3, "softmax")]
    )
    kernel = network.layers[0].kernel
    penalty = tf.function(lambda: keras.ops.sum(keras.ops.square(kernel)))

    def loss(y_true, y_pred):
        y_true = keras.ops.one_hot(y_true[:, 0], 3)
        return keras.ops.sum((y_true - y_pred) ** 2, -1) + penalty()

    class Penalized(keras_esam.ESAMModel):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) + penalty()

    if wrapped_part == "loss":
        model = esam(network, beta=1, gamma=1)
        model.compile("sgd", loss)
    else:
        model = Penalized(network, ascent_fraction=1)
        model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="Remove the `tf.function`"):
        fit(model, X, Y[:, None])
