"""What counts as the same training."""

import functools
import json

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam.callbacks import training_settings
from tests.networks import PAPER
from tests.networks import esam

layers = keras.layers
CosineDecay = keras.optimizers.schedules.CosineDecay


class WithLayers:
    """Keras cannot serialise its argument, so it has no configuration."""

    def __init__(self, unserialisable, units=3, rate=0.1):
        super().__init__()
        self.unserialisable = unserialisable
        self.dense = layers.Dense(units)
        self.dropout = layers.Dropout(rate)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, inputs):
        return self.dropout(self.dense(inputs))


class Scaled(WithLayers, layers.Layer):
    pass


class Subclassed(WithLayers, keras.Model):
    pass


def subclassed(**kwargs):
    model = Subclassed(object(), **kwargs)
    model.build((None, 4))
    return model


def with_custom_layer(**kwargs):
    return keras.Sequential([keras.Input((4,)), Scaled(object(), **kwargs)])


def graph(num_outputs=2, is_swapped=False):
    """Names that Keras numbers, one of them that of an activation too."""
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Softmax(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    shared = layers.Dense(4)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    first, second = (shared(inner(x)) for x in inputs)
    if is_swapped:
        first, second = second, first
    x = keras.ops.relu(first - 2.0 * second)
    outputs = [layers.Dense(1)(x) for _ in range(num_outputs)]
    return keras.Model(inputs, outputs)


def images(batch_size=None, size=8):
    return keras.Sequential(
        [
            keras.Input((size, size, 3), batch_size=batch_size),
            layers.RandomCrop(4, 4),
            layers.RandomFlip(),
            layers.Lambda(lambda x: 2 * x, output_shape=(4, 4, 3)),
            layers.Normalization(
                mean=np.arange(3.0), variance=np.full(3, np.nan)
            ),
            layers.Flatten(),
            layers.Dense(1, kernel_initializer="he_normal"),
        ]
    )


def dense(dtype="mixed_bfloat16", trainable=True):
    layer = layers.Dense(3, dtype=dtype, trainable=trainable)
    return keras.Sequential([keras.Input((4,)), layer])


def compiled(network, **kwargs):
    optimizer = keras.optimizers.AdamW(CosineDecay(0.1, 100))
    network.compile(
        **{"optimizer": optimizer, "loss": lambda y, p: y - p, **kwargs}
    )
    return network


def found(before, now):
    written = json.loads(json.dumps(training_settings.describe(before)))
    now = training_settings.describe(now)
    return training_settings.differences(now, written, {})


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(
    "make", [subclassed, with_custom_layer, graph, images, dense]
)
def test_network_that_is_made_twice_is_the_same(make, is_wrapped):
    networks = make(), make()
    if is_wrapped:
        networks = (esam(n, seed=1) for n in networks)
    assert not found(*map(compiled, networks))


@pytest.mark.parametrize(
    "make, kwargs, line",
    [
        (subclassed, {"units": 5}, "model.layers.0.units: 5, not 3"),
        (
            with_custom_layer,
            {"units": 5},
            "weights.0: '(4, 5) float32', not '(4, 3) float32'",
        ),
        (graph, {"is_swapped": True}, "model.layers.2.inbound_nodes.0.args"),
        (images, {"size": 9}, "model.layers.0.batch_shape: [9, 9, 3], not [8"),
        (dense, {"dtype": "float32"}, "model.layers.1.dtype.name: 'float32'"),
        (dense, {"trainable": False}, "model.layers.1.trainable: False"),
    ],
)
def test_other_networks_are_seen(make, kwargs, line):
    first, *_ = found(compiled(make()), compiled(make(**kwargs)))
    assert first.startswith(f"- {line}")


def custom_loss(y, y_pred, power=1):
    return keras.ops.mean(keras.ops.abs(y - y_pred) ** power)


def closure(weight):
    def loss(y_true, y_pred):
        return weight * keras.losses.mean_squared_error(y_true, y_pred)

    return loss


class Weighted(keras.losses.Loss):
    """Has no configuration."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y, y_pred):
        return self.weight * keras.ops.mean(keras.ops.abs(y - y_pred), -1)


def smooth(value):
    return keras.losses.CategoricalCrossentropy(label_smoothing=value)


@pytest.mark.parametrize(
    "before, now, line",
    [
        (custom_loss, "mse", "loss: 'mse', not 'custom_loss'"),
        (
            functools.partial(custom_loss, power=2),
            functools.partial(custom_loss, power=3),
            "loss: 'functools.partial(<function custom_loss>, power=3)'",
        ),
        (
            keras.losses.Huber(1.0),
            keras.losses.Huber(2.0),
            "loss._fn_kwargs.delta: 2, not 1",
        ),
        (Weighted(1.0), Weighted(2.0), "loss.weight: 2, not 1"),
        (closure(1.0), closure(2.0), "loss.0: 2, not 1"),
    ],
)
def test_losses_are_compared(before, now, line):
    models = [compiled(graph(1), loss=loss) for loss in (before, now)]
    assert found(*models)[-1].startswith(f"- {line}")
    assert not found(models[0], models[0])


def test_losses_by_numbered_names_of_outputs():
    def model(weight):
        network = graph()
        names = network.output_names
        weights = dict(zip(names, (1.0, weight), strict=True))
        losses = dict.fromkeys(names, "mse")
        return compiled(network, loss=losses, loss_weights=weights)

    assert not found(model(2.0), model(2.0))
    assert found(model(2.0), model(3.0)) == ["- loss_weights.1: 3, not 2"]


class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """Has no configuration."""

    def __init__(self, value):
        self.value = value

    def __call__(self, step):
        return self.value


def test_schedules_are_compared():
    def model(schedule, momentum=0.0):
        wrapped = esam(graph(), rho=schedule, seed=1)
        optimizer = keras.optimizers.SGD(schedule, momentum=momentum)
        return compiled(wrapped, optimizer=optimizer)

    decays = model(CosineDecay(0.1, 100)), model(CosineDecay(0.1, 200))
    assert found(*decays) == [
        "- model.rho.decay_steps: 200, not 100",
        "- optimizer.learning_rate.decay_steps: 200, not 100",
    ]
    assert found(model(0.1), decays[0]) == [
        "- model.rho: 'CosineDecay', not 0.1",
        "- optimizer.learning_rate: 'CosineDecay', not 0.1",
    ]
    assert not found(model(Constant(1.0), 0.5), model(Constant(1.0), 0.5))
    assert set(found(model(Constant(1.0), 0.5), model(Constant(2.0), 0.9))) == {
        "- model.rho.value: 2, not 1",
        "- optimizer.momentum: 0.9, not 0.5",
        "- optimizer.learning_rate: 2, not 1",
    }


def test_attributes_of_a_subclass_are_compared():
    class Distilled(keras_esam.ESAMModel):
        weight = 1.0

    models = [compiled(Distilled(graph(1), seed=1, **PAPER)) for _ in range(2)]
    models[0].weight, models[1].weight = 0.1, 0.2
    assert found(*models) == ["- model.weight: 0.2, not 0.1"]


def test_what_does_not_change_the_training_is_not_compared():
    now = esam(images(4), seed=1, name="other")
    before = esam(images(8), seed=1)
    kwargs = {"metrics": ["mae"], "run_eagerly": True}
    assert not found(compiled(before), compiled(now, **kwargs))


def test_arguments_that_one_version_has_are_not_compared():
    before = training_settings.describe(compiled(graph()))
    now = {**before, "optimizer.new": 1.0}
    del now["model.layers.2.trainable"]
    assert not training_settings.differences(now, before, {})
