"""What the clean and the ranking pass have in common runs once, alike."""

import weakref

import keras
import numpy as np
import pytest
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

import keras_esam
from keras_esam.trainers import shared_operations
from tests.backends import BACKEND
from tests.networks import NUM_CLASSES
from tests.networks import SubclassedNetwork
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import fit

layers = keras.layers
pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="left to XLA")

NUM_STEPS = 3
# The order of the batch is not that of its rises, and half of it is dropped.
ARGUMENTS = {"rho": 0.3, "beta": 0.6, "gamma": 0.5, "seed": 5}


class KerasLayer(layers.Layer):
    """Its subclasses pass for layers of Keras."""

    def __init_subclass__(cls):
        cls.__module__ = "keras.layers"


class Counting(KerasLayer):
    """Returns its inputs and counts how often it is called."""

    num_calls = 0

    def call(self, inputs):
        self.num_calls += 1
        return inputs


class Centering(KerasLayer):
    """Subtracts a moving mean that a layer of any other place may assign."""

    def __init__(self, mean, **kwargs):
        super().__init__(**kwargs)
        self.mean = mean

    def call(self, inputs):
        value = self.mean.value
        self.mean.assign(0.9 * value + 0.1 * keras.ops.mean(inputs, axis=0))
        return inputs - value


def trunk(x, counting=None):
    """Layers with moving statistics and random numbers."""
    x = layers.BatchNormalization()(layers.Dense(16)(x))
    x = counting(x) if counting else x
    return layers.Dropout(0.3, seed=2)(layers.ReLU()(x))


def functional(counting):
    inputs = keras.Input((8,))
    x = trunk(inputs, counting)
    x = layers.Add()([layers.Dense(16)(x), x])
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def sequential(counting):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16),
            layers.BatchNormalization(),
            counting,
            layers.Dropout(0.3, seed=2),
            layers.Dense(16, "relu"),
            layers.Dense(NUM_CLASSES, "softmax"),
        ]
    )


def nested(counting):
    inner = keras.Input((8,))
    block = keras.Model(inner, layers.Dense(16)(trunk(inner, counting)))
    inputs = keras.Input((8,))
    x = layers.Dense(16)(block(inputs))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def subclassed(counting):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = functional(counting)
            self.head = layers.Dense(NUM_CLASSES, "softmax")

        def call(self, inputs, training=False):
            return self.head(self.block(inputs, training=training))

    network = Network()
    network(np.zeros((1, 8), "float32"))
    return network


def cast(counting):
    """The inputs of its graph are not the tensors of the batch."""
    inputs = keras.Input((8,), dtype="float64")
    x = layers.Rescaling(0.5, dtype="float32")(inputs)
    return keras.Model(
        inputs, layers.Dense(NUM_CLASSES, "softmax")(trunk(x, counting))
    )


NETWORKS = [functional, sequential, nested, subclassed, cast]


def train(make, **kwargs):
    keras.utils.set_random_seed(1)
    counting = Counting()
    network = make(counting)
    model = keras_esam.ESAMModel(network, **{**ARGUMENTS, **kwargs})
    compile_model(model, run_eagerly=True)
    x, y = dense_data(16 * NUM_STEPS)
    fit(model, x[:1], y[:1])  # Builds what is not built.
    counting.num_calls = 0
    logs = fit(model, x, y).history
    return results(model, logs), counting.num_calls / NUM_STEPS


def results(model, logs):
    """Variables, and the rise of the loss, which shows the smallest change."""
    return [*all_values(model), logs["sharpness"]]


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("granularity", ["depth", "variable", "weight"])
def test_sharing_changes_nothing(make, granularity, monkeypatch):
    shared, _ = train(make, granularity=granularity)
    monkeypatch.setattr(keras_esam.ESAMModel, "_shared_operations", None)
    expected, num_calls = train(make, granularity=granularity)
    assert_identical(shared, expected)
    assert num_calls == 3


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_layers_below_the_perturbed_ones_run_once_for_both_passes(make):
    # The smallest subset is that of the head, the largest has all variables.
    counts = []
    for subset in (0, -1):
        keras.utils.set_random_seed(1)
        counting = Counting()
        model = keras_esam.ESAMModel(make(counting), **ARGUMENTS)
        compile_model(model, run_eagerly=True)
        x, y = dense_data(16)
        fit(model, x, y)
        pool = model.subset_pool.subsets
        pool = sorted(pool, key=len)
        chosen = model.subset_pool.subsets.index(pool[subset])
        while model.upcoming_step.subset_index != chosen:
            fit(model, x, y)
        counting.num_calls = 0
        fit(model, x, y)
        counts.append(counting.num_calls)
    assert counts == [2, 3]


def shared_state(counting):
    """A variable that one layer below the perturbed ones and one above use."""
    mean = keras.Variable(np.zeros(16), trainable=False, dtype="float32")
    inputs = keras.Input((8,))
    x = Centering(mean)(counting(layers.Dense(16)(inputs)))
    x = Centering(mean)(layers.Dense(16)(x))
    x = layers.Dense(16)(x)
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def shared_layer(counting):
    """A layer with a seed of its own below and above the perturbed ones."""
    dropout = layers.Dropout(0.3, seed=2)
    inputs = keras.Input((8,))
    x = dropout(counting(layers.Dense(16)(inputs)))
    x = dropout(layers.Dense(16)(dropout(layers.Dense(16)(x))))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def unseeded(counting):
    """Random numbers of Keras' global generator, or of PyTorch's."""

    class Noise(KerasLayer):
        def call(self, x):
            return x + keras.random.normal((16,))

    inputs = keras.Input((8,))
    x = layers.GaussianNoise(0.3)(counting(layers.Dense(16)(inputs)))
    noise = Noise()
    x = layers.Dropout(0.5)(noise(x))
    x = layers.Dropout(0.5)(noise(layers.Dense(16)(x)))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def branches(counting):
    """A branch of two that meet is above a perturbed layer."""
    inputs = keras.Input((8,))
    first = counting(layers.Dense(16)(inputs))
    second = layers.Dense(16)(inputs)
    both = layers.Add()([layers.Dense(16)(first), second])
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(both))


def built_in_the_pass(counting):
    """A graph that is made while a pass runs."""

    class Augmenting(KerasLayer):
        def __init__(self):
            super().__init__()
            self.stack = keras.Sequential(
                [layers.GaussianNoise(0.1, seed=1), layers.Dropout(0.1, seed=2)]
            )

        def build(self, input_shape):
            """Leaves building its stack to the first call in training."""

        def call(self, x, training=None):
            return self.stack(x, training=True) if training else x

    inputs = keras.Input((8,))
    x = layers.Dense(16)(counting(Augmenting()(inputs)))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def block_in_turn(make_state):
    """A network whose layer runs one graph several times on one tensor."""

    class Repeating(KerasLayer):
        def __init__(self, block, set_state):
            super().__init__()
            self.block, self.set_state = block, set_state

        def call(self, x):
            outputs = []
            for number in (1, 2):
                mode = self.set_state(number)
                outputs.append(self.block(x, **mode))
            return keras.ops.concatenate(outputs, -1)

    inputs = keras.Input((8,))
    middle, set_state = make_state(layers.Dense(8)(inputs))
    block = keras.Model(inputs, layers.Dense(8)(middle))
    inputs = keras.Input((8,))
    x = Repeating(block, set_state)(inputs)
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def both_modes(counting):
    """A graph in inference and in training mode on the same tensor."""

    def make_state(x):
        dropout = layers.Dropout(0.5, seed=1)
        return dropout(x), lambda number: {"training": number == 2}

    return block_in_turn(make_state)


def python_state(counting):
    """A layer that does otherwise each time it is called."""

    class Scaling(KerasLayer):
        factor = 1.0

        def call(self, x):
            return x * self.factor

    def make_state(x):
        scaling = Scaling()

        def set_state(number):
            scaling.factor = 0.5 * number
            return {}

        return scaling(x), set_state

    return block_in_turn(make_state)


def named_arguments(counting):
    """Calls with the same tensors in the places of other arguments."""

    class Choosing(KerasLayer):
        def call(self, x, a=None, b=None):
            return x + (a * 2 if a is not None else b * 3)

    inputs = keras.Input((8,))
    x, choosing = layers.Dense(8)(inputs), Choosing()
    x = layers.Concatenate()([choosing(x, a=inputs), choosing(x, b=inputs)])
    x = layers.Dense(8)(x)
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def collecting(counting):
    """Layers that hand tensors to the last one by a list of Python."""
    collected = []

    class Collecting(layers.Layer):
        def call(self, x):
            if not in_symbolic_scope():
                collected.append(x)
            return x

    class Last(layers.Layer):
        def call(self, x):
            if not in_symbolic_scope():
                assert len(collected) == 2
                x = x + 0.5 * collected[0] - 0.1 * collected[1]
                collected.clear()
            return x

    inputs = keras.Input((8,))
    x = Collecting()(layers.Dense(16, "tanh")(inputs))
    x = Last()(Collecting()(layers.Dense(16)(x)))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


def slot(counting):
    """Layers that read and write one attribute of an object of Python."""
    last = []

    def scaled(x):
        if in_symbolic_scope():
            return x
        last[:] = [*last[-1:], x]
        return x + 0.1 * keras.ops.mean(last[0], axis=0)

    inputs = keras.Input((8,))
    x = layers.Dense(16, activation=scaled)(inputs)
    x = layers.Lambda(scaled)(layers.Dense(16)(x))
    x = layers.Activation(scaled)(layers.Dense(16)(x))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))


@pytest.mark.parametrize(
    "make",
    [
        shared_state,
        shared_layer,
        unseeded,
        branches,
        built_in_the_pass,
        both_modes,
        python_state,
        named_arguments,
        collecting,
        slot,
    ],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("granularity", ["depth", "variable"])
def test_state_is_as_if_all_had_run(make, granularity, monkeypatch):
    shared, _ = train(make, granularity=granularity)
    monkeypatch.setattr(keras_esam.ESAMModel, "_shared_operations", None)
    expected, _ = train(make, granularity=granularity)
    assert_identical(shared, expected)


class Widening(keras_esam.ESAMModel):
    """Has a weight below the network, which then is not all that it calls."""

    def build(self, input_shape):
        super().build(input_shape)
        self.factor = self.add_weight(shape=(8,), initializer="ones")

    def call(self, inputs, training=None):
        return self.model(inputs * self.factor, training=training)


def test_subclass_that_changes_the_inputs(monkeypatch):
    values = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(
                keras_esam.ESAMModel, "_shared_operations", None
            )
        keras.utils.set_random_seed(1)
        model = Widening(functional(Counting()), **{**ARGUMENTS, "rho": 2.0})
        model.build((None, 8))
        compile_model(model, run_eagerly=True)
        logs = fit(model, *dense_data(), epochs=3).history
        values.append(results(model, logs))
    assert_identical(*values)


def test_keras_runs_its_graphs_as_before_after_an_error():
    class Failing(layers.Layer):
        fails = False

        def call(self, inputs):
            if self.fails:
                raise ArithmeticError("as told")
            return inputs

    failing = Failing()
    model = keras_esam.ESAMModel(functional(failing), **ARGUMENTS)
    compile_model(model, run_eagerly=True)
    before = keras.Function._run_through_graph
    fit(model, *dense_data(16))
    failing.fails = True
    with pytest.raises(ArithmeticError, match="as told"):
        fit(model, *dense_data(16))
    assert keras.Function._run_through_graph is before
    assert shared_operations._sharing.operations is None
    assert shared_operations._num_passes == 0


def test_networks_without_a_graph_share_nothing():
    class Network(SubclassedNetwork):
        def call(self, inputs, training=False):
            return super().call(counting(inputs), training=training)

    counting = Counting()
    model = keras_esam.ESAMModel(Network(), **ARGUMENTS)
    compile_model(model, run_eagerly=True)
    fit(model, *dense_data(16))
    counting.num_calls = 0
    fit(model, *dense_data(16))
    assert counting.num_calls == 3


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's tensors")
def test_tensor_that_is_changed_in_place_is_not_shared(monkeypatch):
    class InPlace(KerasLayer):
        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor):
                return inputs
            return inputs.mul_(2.0)

    def make(counting):
        # The first one changes what the cast of the inputs gives.
        inputs = keras.Input((8,), dtype="float64")
        x = keras.ops.cast(InPlace(dtype="float64")(inputs), "float32")
        x = counting(layers.Rescaling(0.5)(x))
        x = layers.Dense(16)(InPlace()(x))
        x = layers.Dense(16)(x)
        return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))

    shared, _ = train(make)
    monkeypatch.setattr(keras_esam.ESAMModel, "_shared_operations", None)
    expected, _ = train(make)
    assert_identical(shared, expected)


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's tensors")
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_tensors_of_inference_mode_are_not_shared(monkeypatch):
    import torch

    class Frozen(KerasLayer):
        def __init__(self):
            super().__init__()
            inputs = keras.Input((8,))
            x = layers.ReLU()(layers.Dense(8)(inputs))
            self.block = keras.Model(inputs, x, trainable=False)

        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor):
                return self.block(inputs)
            with torch.inference_mode():
                outputs = self.block(inputs)
            return outputs.clone()

    def make(counting):
        inputs = keras.Input((8,))
        x = layers.Dense(16)(counting(Frozen()(inputs)))
        return keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))

    shared, _ = train(make)
    monkeypatch.setattr(keras_esam.ESAMModel, "_shared_operations", None)
    expected, _ = train(make)
    assert_identical(shared, expected)


def test_tensors_do_not_live_beyond_the_second_pass():
    made = []

    class Watched(KerasLayer):
        def call(self, inputs):
            outputs = inputs + 1.0
            made.append(weakref.ref(outputs))
            if len(made) == 2:  # F1 and F2; Fs takes what F1 had.
                alive.append(made[0]() is not None)
            return outputs

    alive = []
    inputs = keras.Input((8,))
    x = layers.Dense(16)(Watched()(layers.Rescaling(0.5)(inputs)))
    network = keras.Model(inputs, layers.Dense(NUM_CLASSES, "softmax")(x))
    model = keras_esam.ESAMModel(network, **ARGUMENTS)
    compile_model(model, run_eagerly=True)
    x, y = dense_data(16)
    fit(model, x, y)
    alive.clear()
    for _ in range(5):
        made.clear()
        fit(model, x, y)
    assert alive and not any(alive)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's graphs")
def test_branch_of_a_graph_keeps_its_tensors_to_itself(monkeypatch):
    import tensorflow as tf

    inner = keras.Input((8,))
    block = keras.Model(inner, layers.Dense(8)(layers.Dense(8)(inner)))

    class Branching(KerasLayer):
        def __init__(self):
            super().__init__()
            self.block = block

        def call(self, inputs):
            return tf.cond(
                tf.reduce_sum(inputs) > 0,
                lambda: self.block(inputs),
                lambda: -self.block(inputs),
            )

    values = []
    weights = block.get_weights()
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(
                keras_esam.ESAMModel, "_shared_operations", None
            )
        keras.utils.set_random_seed(1)
        block.set_weights(weights)
        network = keras.Sequential(
            [
                keras.Input((8,)),
                Branching(),
                layers.Dense(NUM_CLASSES, "softmax"),
            ]
        )
        model = keras_esam.ESAMModel(network, **ARGUMENTS)
        compile_model(model, run_eagerly=False)
        logs = fit(model, *dense_data(), epochs=3).history
        values.append(results(model, logs))
    assert_identical(*values)
