"""`granularity="depth"`: order of the variables, and the shared prefix."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

import keras_esam
from tests.backends import BACKEND
from tests.backends import compiled_steps
from tests.backends import tensorflow_only
from tests.networks import PAPER
from tests.networks import esam
from tests.networks import plan_with

layers = keras.layers


def names(network):
    model = esam(network, granularity="depth")
    variables = [
        model.trainable_variables[i] for i in model._find_variables().order
    ]
    return [variable.path.split("/")[-2] for variable in variables][::2]


def test_variables_of_a_functional_network_are_in_the_order_of_its_graph():
    """Here the layers are created in another order than they are applied in."""
    dense = {name: layers.Dense(4, name=name) for name in "edcba"}
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, dense["c"](dense["b"](inner_input)))
    inputs = keras.Input((4,))
    late = dense["d"](inputs)  # joins the others behind `c`
    x = layers.Add()([inner(dense["a"](inputs)), late])
    network = keras.Model(inputs, dense["e"](x))
    assert names(network) == list("abcde")


def test_variables_of_nested_networks_are_in_the_order_of_the_graph():
    head = keras.Sequential([layers.Dense(4, name="c")])
    body = keras.Sequential([layers.Dense(4, name="a")])
    middle = layers.Dense(4, name="b")
    inputs = keras.Input((4,))
    network = keras.Model(inputs, head(middle(body(inputs))))
    assert names(network) == list("abc")
    stack = keras.Sequential([keras.Input((4,)), network, layers.Dense(1)])
    assert names(stack)[:3] == list("abc")


def test_shared_layer_is_where_it_is_first_used():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    x = layers.Dense(4, name="second")(shared(x))
    network = keras.Model(inputs, layers.Dense(2, name="last")(shared(x)))
    assert names(network) == ["first", "shared", "second", "last"]


class SetsLayersFirst(keras.Model):
    """Functional, with layers that became attributes in another order."""

    def __init__(self):
        head = layers.Dense(4, name="head")
        body = [layers.Dense(4, name=name) for name in "ab"]
        if BACKEND != "torch":  # Which has no attributes yet.
            self.head, self.body = head, body
        x = inputs = keras.Input((4,))
        for layer in body:
            x = layer(x)
        super().__init__(inputs, head(x))
        self.head, self.body = head, body


def test_layers_of_a_functional_subclass_are_in_the_order_of_its_graph():
    network = SetsLayersFirst()
    model = esam(network, granularity="depth", beta=0.5)
    assert names(network) == ["a", "b", "head"]
    # The smallest subset has the bias of the head alone, whatever its index.
    (last,) = min(model.subset_pool.subsets, key=len)
    assert model.trainable_variables[last] is network.head.bias
    assert model.subset_pool.probabilities[last] == 1.0


def test_layers_of_another_model_are_in_the_order_of_its_attributes():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.shift = self.add_weight(name="shift", shape=(4,))
            self.first = layers.Dense(4, name="first", use_bias=False)
            self.inner = SetsLayersFirst()
            self.last = layers.Dense(4, name="last")

        def call(self, inputs):
            return self.last(self.inner(self.first(inputs + self.shift)))

    network = Subclassed()
    network(np.ones((1, 4)))
    assert names(network)[1:] == ["a", "b", "head", "last"]
    model = esam(network)
    first = [
        model.trainable_variables[i] for i in model._find_variables().order
    ]
    assert first[0] is network.shift and first[1] is network.first.kernel


class WithoutGraph(keras.Model):
    """A model of which Keras knows no graph."""

    def __init__(self, stack):
        super().__init__()
        self.stack = stack

    def call(self, inputs, training=False):
        for layer in self.stack:
            has_mode = layer._call_has_training_arg
            inputs = layer(inputs, **{"training": training} if has_mode else {})
        return inputs


def conv_network(num_layers=3, has_graph=True):
    stack = []
    for _ in range(num_layers - 1):
        stack.append(layers.Conv2D(4, 3, padding="same", use_bias=False))
        stack.append(layers.BatchNormalization(scale=False))
        stack.append(layers.Dropout(0.1))
    stack += [layers.Conv2D(3, 8, use_bias=False), layers.Flatten()]
    if not has_graph:
        return WithoutGraph(stack)
    return keras.Sequential([keras.Input((8, 8, 3)), *stack])


def compiled_step(subset_index, jit_compile=False, has_graph=True, **kwargs):
    """Function and arguments of the training step with a subset."""
    keras.utils.set_random_seed(1)
    network = conv_network(has_graph=has_graph)
    model = esam(network, seed=1, **kwargs)
    model._preferred_pool_size = 5
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(momentum=0.9)
    model.compile(optimizer, loss, run_eagerly=True)
    x, y = tf.random.normal((4, 8, 8, 3)), tf.zeros((4,), tf.int32)
    model.train_on_batch(x, y)
    plan = plan_with(model, subset_index)
    step = tf.function(
        lambda x, y: model.train_step((x, y), plan=plan),
        jit_compile=jit_compile,
    )
    return step, (x, y)


def convolutions(subset_index, **kwargs):
    """Numbers of convolutions in a step, by the kind of operation.

    They are those of the step as traced, and as TensorFlow runs it.
    """
    step, batch = compiled_step(subset_index, **kwargs)
    size = len(step.get_concrete_function(*batch).graph.get_operations())
    context.context().enable_run_metadata()
    step(*batch)
    graphs = context.context().export_run_metadata().function_graphs
    context.context().disable_run_metadata()
    # There may be that of a step before among them.
    graph_of_step = min(
        graphs, key=lambda g: abs(len(g.pre_optimization_graph.node) - size)
    )
    return [
        collections.Counter(
            node.op for node in graph.node if node.op.startswith("Conv2D")
        )
        for graph in (
            graph_of_step.pre_optimization_graph,
            graph_of_step.post_optimization_graph,
        )
    ]


@tensorflow_only
@pytest.mark.parametrize(
    ("subset_index", "has_graph"),
    [(0, True), (1, True), (2, False)],
)
def test_passes_run_from_the_perturbed_layers_on(subset_index, has_graph):
    traced, run = convolutions(
        subset_index, has_graph=has_graph, granularity="depth", beta=0.6
    )
    # Of five variables, kernel and offset of two layers and the last kernel,
    # the subsets have the last 1, 2, 3, 4 and 5.
    perturbed_kernels = [1, 1, 2, 2, 3][subset_index]
    starts_with_offset = subset_index in (1, 3)
    assert run["Conv2D"] == 3 + perturbed_kernels + 3
    assert traced["Conv2D"] == 3 * 3  # TensorFlow merges equal ones
    assert run["Conv2DBackpropFilter"] == perturbed_kernels + 3
    # To reach the offset the gradient goes through the kernel above it.
    passed = perturbed_kernels - (not starts_with_offset)
    assert run["Conv2DBackpropInput"] == passed + 2


@tensorflow_only
def test_ranking_by_loss_runs_no_third_pass():
    _, run = convolutions(4, granularity="depth", rank_by="loss")
    assert run["Conv2D"] == 3 + 3


@tensorflow_only
def test_one_step_costs_what_the_base_optimizer_does():
    _, base = convolutions(0, rho=0)
    _, one_step = convolutions(0, ascent="momentum", beta=1, gamma=1)
    assert one_step == base
    _, selected = convolutions(0, ascent="momentum", rank_by="loss")
    assert selected["Conv2D"] == 3 + 3


@tensorflow_only
@pytest.mark.slow
def test_xla_merges_the_prefix_too():
    """As many convolutions less as in TensorFlow's own optimization."""
    counts = []
    for subset_index in (0, 4):
        step, batch = compiled_step(
            subset_index, jit_compile=True, granularity="depth"
        )
        program = step.experimental_get_compiler_ir(*batch)("optimized_hlo")
        counts.append(program.count(" convolution("))
    # Fs two forward ones, B1 two filter and two input gradients.
    assert counts[1] - counts[0] == 2 + 2 + 2


@compiled_steps
def test_equal_subsets_of_few_variables_share_one_compiled_step():
    """Two variables: the subsets have the last one, or both."""
    traced = []

    class Traced(keras_esam.ESAMModel):
        def train_step(self, *args):
            traced.append(self._plan_step().subset)
            return super().train_step(*args)

    x = np.ones((4, 3))
    model = Traced(
        keras.Sequential([keras.Input((3,)), layers.Dense(3)]),
        granularity="depth",
        **PAPER,
    )
    model.compile("sgd", "mse")
    for _ in range(10):
        model.train_on_batch(x, x)
    assert sorted(traced) == [(0, 1), (1,)]
    assert model.subset_pool.probabilities == (1 / 3, 1.0)


def test_upcoming_step_of_a_network_that_is_not_built():
    model = esam(keras.Sequential([layers.Dense(3)]), seed=1)
    model.compile("sgd", "mse")
    assert not model.upcoming_step.is_base_step
    model.fit(
        np.ones((8, 3)),
        np.ones((8, 3)),
        batch_size=4,
        verbose=0,
        callbacks=[keras_esam.callbacks.ThroughputLogger()],
    )
    assert model.built


@pytest.mark.parametrize("granularity", ["depth", "variable", "weight"])
def test_weights_of_a_subclass_of_the_wrapper_are_perturbed_too(granularity):
    class Shifted(keras_esam.ESAMModel):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.shift = self.add_weight(name="shift", shape=(3,))

        def call(self, inputs, training=None):
            return super().call(inputs, training=training) + self.shift

    network = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    model = Shifted(network, granularity=granularity, **PAPER)
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((4, 3)), np.ones((4, 3)))
    perturbed = {i for subset in model.subset_pool.subsets for i in subset}
    assert perturbed == set(range(len(model.trainable_variables))) == {0, 1, 2}
