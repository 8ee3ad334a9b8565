"""Everything that `compile` and `fit` offer.

At learning rate 0 the logs are the bare model's: loss and metrics are clean.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.backends import BACKEND
from tests.backends import tensorflow_only
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

layers = keras.layers

NUM_SAMPLES = 24


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def two_inputs_two_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(8, activation="relu")(
        layers.Concatenate()([layers.Dropout(0.2)(a), b])
    )
    first = layers.Dense(2, name="first")(hidden)
    second = layers.Dense(1, name="second")(hidden)
    return keras.Model({"a": a, "b": b}, {"first": first, "second": second})


def dict_case():
    x = {"a": random(NUM_SAMPLES, 4), "b": random(NUM_SAMPLES, 3, seed=1)}
    y = {
        "first": random(NUM_SAMPLES, 2, seed=2),
        "second": random(NUM_SAMPLES, 1, seed=3),
    }
    options = {
        "loss": {"first": "mse", "second": "mae"},
        "loss_weights": {"first": 1.0, "second": 0.3},
        "metrics": {"first": ["mae"], "second": ["mse"]},
        "weighted_metrics": {"first": ["mse"], "second": ["mae"]},
    }
    weight = np.abs(random(NUM_SAMPLES, seed=4))
    return two_inputs_two_outputs, x, y, weight, options


def masked_case():
    """Padded sequences; every time step has a target."""

    def make():
        return keras.Sequential(
            [
                keras.Input((6,), dtype="int32"),
                layers.Embedding(12, 5, mask_zero=True),
                layers.SimpleRNN(4, return_sequences=True, unroll=True),
                layers.Dense(2),
            ]
        )

    x = np.random.default_rng(0).integers(1, 12, (NUM_SAMPLES, 6))
    for row, length in zip(x, np.arange(NUM_SAMPLES) % 6 + 1, strict=True):
        row[length:] = 0
    y = random(NUM_SAMPLES, 6, 2)
    return make, x, y, None, {"loss": "mse", "weighted_metrics": ["mae"]}


class ExtraLosses(layers.Layer):
    """Adds a loss on its input, and has a weight that nothing uses."""

    def build(self, input_shape):
        self.unused = self.add_weight(shape=(3,), name="unused")

    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def extra_losses_case():
    def make():
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(
                    8, kernel_regularizer="l2", activity_regularizer="l1"
                ),
                ExtraLosses(),
                layers.Dense(2, bias_regularizer="l2"),
            ]
        )

    x, y = random(NUM_SAMPLES, 4), random(NUM_SAMPLES, 2, seed=1)
    weight = np.abs(random(NUM_SAMPLES, seed=2))
    return make, x, y, weight, {"loss": "mse", "weighted_metrics": ["mae"]}


class Counter(layers.Layer):
    """Counts its calls in training and keeps a running mean."""

    def build(self, input_shape):
        self.count = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.mean_metric = keras.metrics.Mean(name="mean_input")
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        if training:
            self.count.assign(self.count + 1)
            if BACKEND != "jax":  # Keras has no values of it there.
                self.mean_metric.update_state(inputs)
        # JAX wants a seed generator; elsewhere it is Keras' global one.
        seed = self.seed_generator if BACKEND == "jax" else None
        noise = keras.random.normal(keras.ops.shape(inputs), seed=seed)
        return inputs + 0.0 * noise


def layers_with_state_case():
    def make():
        frozen = layers.Dense(8, trainable=False)
        return keras.Sequential(
            [keras.Input((4,)), Counter(), frozen, layers.Dense(2)]
        )

    x, y = random(NUM_SAMPLES, 4), random(NUM_SAMPLES, 2, seed=1)
    return make, x, y, None, {"loss": "mse"}


CASES = {
    "dict": dict_case(),
    "masked": masked_case(),
    "extra_losses": extra_losses_case(),
    "layers_with_state": layers_with_state_case(),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:Gradients do not exist for variables"
)


def train(model, x, y, weight, options, learning_rate):
    model.compile(keras.optimizers.SGD(learning_rate), **options)
    data = (x, y) if weight is None else (x, y, weight)
    data = keras.tree.lists_to_tuples(data)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(10)
    return model.fit(dataset, shuffle=False, verbose=0).history


@pytest.mark.parametrize("case", CASES)
def test_compiled_steps_have_clean_logs_and_state_of_the_bare_model(case):
    """At learning rate 0."""
    make, x, y, weight, options = CASES[case]
    results = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        network = model = make()
        if wrap:
            model = esam(network, rho=5.0, beta=1, seed=1)
        logs = train(model, x, y, weight, options, 0.0)
        results.append((logs, all_values(network)))
    (expected, state), (logs, state_of_wrapped) = results
    assert logs.pop("sharpness")[0] > 0
    assert set(logs) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(logs[key], value, rtol=1e-6)
    assert_identical(state, state_of_wrapped)


@pytest.mark.parametrize("method", [{"gamma": 1}, {}, {"micro_batch_size": 4}])
def test_weights_of_masked_time_steps(method):
    """A mask that is the same share of each sample scales the weights."""
    rng = np.random.default_rng(0)
    valid = np.tile([0, 0, 1, 1, 1, 1], (NUM_SAMPLES // 2, 1))
    valid = rng.permuted(valid, axis=1)
    x = rng.integers(1, 12, valid.shape) * valid
    y = random(*x.shape, 2)
    weight = np.abs(random(*x.shape, seed=1))
    values = []
    for masked in (True, False):
        keras.utils.set_random_seed(1)
        embedding = layers.Embedding(12, 5, mask_zero=masked)
        network = keras.Sequential([embedding, layers.Dense(2)])
        model = esam(network, rho=0.3, beta=1, **method)
        model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
        sample_weight = weight if masked else weight * valid * 6 / 4
        history = fit(
            model, x, y, sample_weight=sample_weight, batch_size=NUM_SAMPLES
        ).history
        values.append([*model.get_weights(), *history.values()])
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_class_weight_is_a_sample_weight():
    x, y = dense_data(32)
    class_weight = {0: 0.2, 1: 1.0, 2: 3.0}
    sample_weight = np.array([class_weight[label] for label in y])
    weights = []
    for options in (
        {"class_weight": class_weight},
        {"sample_weight": sample_weight.astype("float32")},
        {},
    ):
        model = esam(dense_network(), rho=0.1, seed=1)
        compile_model(model)
        fit(model, x, y, **options)
        weights.append(model.get_weights())
    assert_identical(weights[0], weights[1])
    assert not np.array_equal(weights[0][0], weights[2][0])


@pytest.mark.parametrize(
    ("num_samples", "compile_it"),
    [(1, compile_model), (3, compile_model), (17, compile_to_graph)],
)
def test_ragged_last_batches(num_samples, compile_it):
    x, y = dense_data(num_samples)
    model = esam(dense_network(), rho=0.1, beta=1)
    history = fit(compile_it(model), x, y)
    assert np.all(np.isfinite(history.history["loss"]))
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


def test_dropout_masks_are_those_of_the_clean_pass():
    """At a tiny radius the rise is tiny, unless the masks differ."""
    x, y = dense_data(48)
    for method in ({}, {"gamma": 1}):
        network = dense_network(batch_norm=False)
        model = esam(network, rho=1e-6, beta=1, **method)
        compile_model(model)
        assert abs(fit(model, x, y).history["sharpness"][0]) < 1e-4


def test_embedding_used_twice_has_summed_gradients():
    """Rows that occur several times, and a dense use of the same variable."""
    tokens = np.array([[1, 1, 2], [2, 2, 2], [3, 1, 0], [0, 3, 3]])
    target = random(4, 5)
    results = []
    for sparse in (True, False):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,), dtype="int32")
        embedding = layers.Embedding(5, 5)
        if sparse:
            x = embedding(inputs)
        else:
            one_hot = layers.CategoryEncoding(5, output_mode="one_hot")(inputs)
            dense = layers.Dense(5, use_bias=False)
            x = dense(one_hot)
        network = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
        if not sparse:
            embedding.build(())
            dense.kernel.assign(embedding.embeddings)
        model = esam(network, rho=0.5, beta=1, gamma=1)
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mse")
        fit(model, tokens, target, epochs=5)
        results.append(model.get_weights()[0])
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)


def test_network_whose_call_takes_no_training_argument():
    """Keras then trains without dropout. So does the wrapper."""

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.dropout = layers.Dropout(0.5)
            self.out = layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.out(self.dropout(inputs))

    x, y = dense_data(32)
    histories = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        model = Network()
        if wrap:
            model = esam(model, rho=5.0)
        compile_model(model, keras.optimizers.SGD(0.0))
        histories.append(fit(model, x, y).history)
    assert histories[0]["loss"] == histories[1]["loss"]


@tensorflow_only
def test_inputs_are_not_cast_by_the_wrapper():
    seen = []

    class Network(keras.Model):
        def __init__(self):
            super().__init__(autocast=False)
            self.out = layers.Dense(3)

        def call(self, inputs):
            seen.append(keras.backend.standardize_dtype(inputs.dtype))
            return self.out(keras.ops.cast(inputs, "float32"))

    model = esam(Network())
    model.compile("sgd", "mse")
    x = np.ones((4, 8), "float64")
    model.train_on_batch(x, np.ones((4, 3)))
    assert set(seen) == {"float64"}


def test_dataset_without_targets_trains_on_added_losses():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = layers.Dense(3)

        def call(self, inputs):
            y = self.out(inputs)
            self.add_loss(keras.ops.mean(keras.ops.square(y - 1)))
            return y

    x, _ = dense_data(32)
    model = esam(Network(), rho=0.1, rank_by="random")
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(x, batch_size=16, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


class Bag(keras.Model):
    """Mean of embeddings; takes ragged or padded tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(8, 4)
        self.out = layers.Dense(3, activation="softmax")

    def call(self, inputs):
        if isinstance(inputs, tf.RaggedTensor):
            inputs = inputs.to_tensor(shape=(None, 3))
        return self.out(keras.ops.mean(self.embedding(inputs), axis=1))


@tensorflow_only
def test_ragged_inputs_train_as_dense_ones():
    tokens = [[1, 2], [3], [1, 2, 3], [4, 4], [2], [1, 5, 6], [7]]
    ragged = tf.ragged.constant(tokens)
    y = np.arange(7) % 3
    weights = []
    for x in (ragged, ragged.to_tensor()):
        keras.utils.set_random_seed(1)
        model = esam(Bag(), rho=0.1, seed=1)
        compile_model(model, keras.optimizers.SGD(0.5))
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
        model.fit(dataset, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
