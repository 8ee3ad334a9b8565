"""What the compiled step contains, and what an error in it leaves behind."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.backends import BACKEND
from tests.backends import compiled_steps
from tests.backends import tensorflow_only
from tests.networks import PAPER
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit
from tests.networks import plan_with


def count_operations(kind, subset_index=0, **kwargs):
    """Number of operations of a kind in the compiled training step."""
    keras.utils.set_random_seed(1)
    stack = [keras.Input((8,))]
    stack += [keras.layers.Dense(8, use_bias=False) for _ in range(4)]
    model = esam(keras.Sequential(stack), seed=1, **kwargs)
    model.compile("sgd", "mse", run_eagerly=True)
    x = tf.ones((4, 8))
    model.train_on_batch(x, x)
    plan = plan_with(model, subset_index)

    @tf.function
    def step(x, y):
        return model.train_step((x, y), plan=plan)

    operations = step.get_concrete_function(x, x).graph.get_operations()
    return sum(op.type == kind for op in operations), plan.subset


@tensorflow_only
def test_gradients_of_the_other_variables_are_not_computed():
    """Four forward products, and in B1 one per perturbed kernel and one per
    layer that the gradient has to pass."""
    forward = 4
    whole = 4 + 3  # weight gradients, and input gradients of all but the first
    for subset in range(2):
        count, perturbed = count_operations(
            "MatMul", subset, granularity="variable", beta=0.5, gamma=1
        )
        assert len(perturbed) == 2
        partial = len(perturbed) + 3 - min(perturbed)
        assert count == forward + partial + forward + whole


@tensorflow_only
def test_sam_has_two_passes_and_sgd_one():
    whole = 4 + 4 + 3
    assert count_operations("MatMul", rho=0)[0] == whole
    assert count_operations("MatMul", beta=1, gamma=1)[0] == 2 * whole
    assert count_operations("MatMul", beta=1)[0] == 2 * whole + 4
    loss_ranked = count_operations("MatMul", beta=1, rank_by="loss")
    assert loss_ranked[0] == 2 * whole


class Traced(keras_esam.ESAMModel):
    """Keeps the subset of each step that is traced."""

    def train_step(self, *args):
        self.traces.append(self._plan_step().subset)
        return super().train_step(*args)


def traced_model():
    model = Traced(dense_network(), seed=1, **PAPER)
    model._preferred_pool_size = 2
    model.traces = []
    return compile_to_graph(model)


@tensorflow_only
def test_a_step_is_traced_as_a_whole_with_what_the_model_is_then():
    """All its passes have the loss that its first one has."""

    class Weighted(keras_esam.ESAMModel):
        weight = 1.0

        def compute_loss(self, *args, **kwargs):
            return self.weight * super().compute_loss(*args, **kwargs)

        def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
            return keras.losses.sparse_categorical_crossentropy(y, y_pred)

    network = dense_network(dropout=False)
    network.layers[0].kernel_regularizer = None
    model = Weighted(network, seed=1, **PAPER)
    compile_to_graph(model, keras.optimizers.SGD(0.1))
    x, y = dense_data(16)
    model.train_on_batch(x, y)
    model.weight = 0.0
    before = [w.numpy() for w in model.trainable_variables]
    model.train_on_batch(x, y)  # with the next subset
    assert_identical(before, model.trainable_variables)


@compiled_steps
def test_each_subset_is_traced_once_with_data_of_unknown_length():
    """The call that finds no batch compiles the step that was due."""
    x, y = dense_data(32)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    data = data.filter(lambda x, y: True)
    model = traced_model()
    for _ in range(2):
        with pytest.warns(UserWarning, match="ran out of data"):
            model.fit(data, shuffle=False, verbose=0)
    assert sorted(model.traces) == sorted(model.subset_pool.subsets)


def test_loss_that_tells_the_losses_of_samples_again_logs_sharpness():
    def mean(y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2)

    x, _ = dense_data(16)
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    model = esam(network, gamma=1)
    for loss, is_logged in ((mean, False), ("mse", True)):
        model.compile("sgd", loss)
        assert ("sharpness" in fit(model, x, x).history) == is_logged


# In mid-training Keras itself can not on JAX.
@pytest.mark.parametrize(
    "in_mid_training", [False, pytest.param(True, marks=tensorflow_only)]
)
def test_frozen_layer_is_frozen_in_the_steps_of_all_subsets(in_mid_training):
    x, y = dense_data(16 * 3)
    network = dense_network()
    model = compile_to_graph(esam(network, seed=1))
    model._preferred_pool_size = 2
    kernel = network.layers[0].kernel

    def freeze(batch=0, logs=None):
        if batch == 0:
            network.layers[0].trainable = False
            model.frozen_at = kernel.numpy()

    if in_mid_training:
        hook = keras.callbacks.LambdaCallback(on_train_batch_end=freeze)
        fit(model, x, y, callbacks=[hook])
    else:
        fit(model, x, y)
        freeze()
        fit(model, x, y)
    np.testing.assert_array_equal(kernel, model.frozen_at)
    network.layers[0].trainable = True
    fit(model, x, y)
    assert not np.array_equal(kernel, model.frozen_at)


@pytest.mark.parametrize(
    "run_eagerly", [False, pytest.param(True, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(BACKEND != "jax", reason="other backends keep the steps")
def test_layer_that_is_frozen_between_epochs_stays_as_it_is(run_eagerly):
    x, y = dense_data(32)
    network = dense_network()
    model = esam(network, beta=1, gamma=1, seed=1)
    compile_to_graph(model, run_eagerly=run_eagerly)
    hook = freeze_in_second_epoch(model)
    fit(model, x, y, epochs=2, callbacks=[hook])
    np.testing.assert_array_equal(network.layers[0].kernel, model.before)
    network.layers[0].trainable = True
    model.ascent = "momentum"
    fit(model, x, y, epochs=2, callbacks=[hook])
    np.testing.assert_array_equal(network.layers[0].kernel, model.before)


def freeze_in_second_epoch(model):
    layer = model.model.layers[0]

    def freeze(epoch, logs):
        layer.trainable = epoch == 0
        model.before = keras.ops.convert_to_numpy(layer.kernel)

    return keras.callbacks.LambdaCallback(on_epoch_begin=freeze)


@pytest.mark.skipif(BACKEND == "jax", reason="on JAX `fit` holds the values")
def test_layer_that_is_frozen_in_eager_steps_stays_as_it_is():
    x, y = dense_data(16 * 3)
    network = dense_network()
    model = esam(network, gamma=1, ascent="momentum", seed=1)
    compile_model(model)
    fit(model, x, y, epochs=2, callbacks=[freeze_in_second_epoch(model)])
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network.layers[0].kernel), model.before
    )


def test_frozen_statistics_are_frozen_in_the_steps_of_all_subsets():
    x, y = dense_data(16)
    norm = keras.layers.BatchNormalization(center=False, scale=False)
    network = keras.Sequential(
        [keras.Input((8,)), *dense_network().layers[:-1], norm]
    )
    network.add(keras.layers.Dense(3, "softmax"))
    model = esam(network, seed=1)
    model._preferred_pool_size = 2
    compile_to_graph(model)
    fit(model, x, y)
    norm.trainable = False
    before = norm.moving_mean.numpy()
    for _ in range(2):
        fit(model, x, y)
    np.testing.assert_array_equal(norm.moving_mean, before)


class FailsInPass(keras.layers.Layer):
    """Raises an error in a chosen forward pass of the training step."""

    fail_at = None

    def call(self, inputs, training=False):
        if training and self.fail_at is not None:
            if self.fail_at == 0:
                raise RuntimeError("told to fail")
            self.fail_at -= 1
        return inputs


def global_state():
    """What may outlive a step, and the random numbers that come next."""
    variable = keras.Variable(0.0)
    # In a stateless scope that was left open it would get no value.
    variable.assign(1.0)
    return [
        variable.numpy(),
        keras.config.dtype_policy().name,
        np.random.random(),
        float(keras.random.uniform(())),
        BACKEND == "tensorflow" and tf.config.functions_run_eagerly(),
    ]


@pytest.mark.parametrize("fail_at", [0, 1, 2], ids=["F1", "Fs", "F2"])
def test_error_in_mid_step_leaves_the_model_as_it_was(fail_at):
    """And the global state of Keras and TensorFlow."""
    x, y = dense_data(16)
    network = dense_network()
    fails = FailsInPass()
    network = keras.Sequential([*network.layers, fails])
    network.build((None, 8))
    model = esam(network, beta=1)
    compile_model(model)
    fit(model, x, y)
    before = all_values(model), [v.numpy() for v in model.optimizer.variables]
    weights = model.get_weights()
    keras.utils.set_random_seed(7)
    state = global_state()
    keras.utils.set_random_seed(7)
    fails.fail_at = fail_at
    with pytest.raises(RuntimeError, match="told to fail"):
        fit(model, x, y)
    assert global_state() == state
    assert_identical(before[0], all_values(model))
    assert_identical(before[1], model.optimizer.variables)
    fails.fail_at = None
    fit(model, x, y)
    assert not np.array_equal(weights[0], model.get_weights()[0])


@tensorflow_only
def test_variables_never_hold_the_perturbed_values():
    """Every value that the weights have in a step is theta or the update."""
    seen = []
    dense = keras.layers.Dense(3)
    dense.build((None, 8))
    kernel = dense.kernel

    class Watch(keras.layers.Layer):
        def call(self, inputs, training=False):
            if training:
                seen.append(kernel._value.numpy())
            return inputs

    network = keras.Sequential([keras.Input((8,)), dense, Watch()])
    model = esam(network, rho=10.0, beta=1)
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((4, 8), "float32")
    before = kernel.numpy()
    fit(model, x, x[:, :3])
    assert len(seen) == 3
    for value in seen:
        np.testing.assert_array_equal(value, before)
    assert not np.array_equal(kernel.numpy(), before)


@tensorflow_only
@pytest.mark.slow
def test_compiling_the_subsets_is_no_reason_for_a_warning():
    """In a process of its own: TensorFlow warns twice per process at most."""
    code = (
        "import keras, keras_esam, numpy as np\n"
        "network = keras.Sequential([keras.layers.Dense(8), "
        "keras.layers.Dense(2)])\n"
        "esam = {'beta': 0.6, 'gamma': 0.5, 'ascent_fraction': 1}\n"
        "model = keras_esam.ESAMModel(network, **esam)\n"
        "model.compile('sgd', 'mse')\n"
        "x, y = np.ones((80, 3)), np.ones((80, 2))\n"
        "model.fit(x, y, batch_size=8, verbose=0, validation_data=(x, y))\n"
        "for size in range(9):\n"
        "    keras_esam.analysis.sharpness(model, (x[size:], y[size:]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "retracing" not in result.stderr
