"""What counts as the same training."""

import functools
import json

import keras
import pytest

import keras_esam
from keras_esam.callbacks import training_settings

layers = keras.layers


def custom_loss(y, y_pred, power=1):
    return keras.ops.mean(keras.ops.abs(y - y_pred) ** power)


class Weighted(keras.losses.Loss):
    """Has no configuration."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y, y_pred):
        return self.weight * keras.ops.mean(keras.ops.abs(y - y_pred), -1)


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


def images():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.RandomCrop(4, 4),
            layers.RandomFlip(),
            layers.Lambda(lambda x: 2 * x, output_shape=(4, 4, 3)),
            layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0] * 3),
            layers.Flatten(),
            layers.Dense(1, kernel_initializer="he_normal"),
        ]
    )


def low_precision():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, dtype="mixed_bfloat16")]
    )


def compiled(network, **kwargs):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    optimizer = keras.optimizers.AdamW(schedule)
    network.compile(
        **{"optimizer": optimizer, "loss": lambda y, p: y - p, **kwargs}
    )
    return network


def found(before, now):
    """The differences, by their paths."""
    written = json.loads(json.dumps(training_settings.describe(before)))
    now = training_settings.describe(now)
    return {
        path: values
        for path, *values in training_settings.differences(written, now)
    }


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(
    "make", [subclassed, with_custom_layer, graph, images, low_precision]
)
def test_network_that_is_made_twice_is_the_same(make, is_wrapped):
    networks = make(), make()
    if is_wrapped:
        networks = map(keras_esam.ESAMModel, networks)
    assert not found(*map(compiled, networks))


@pytest.mark.parametrize("make", [subclassed, with_custom_layer])
def test_width_without_a_configuration_is_seen(make):
    assert found(compiled(make()), compiled(make(units=5))).keys() >= {
        "weights.0",
        "weights.1",
    }


def test_layers_of_a_model_without_a_configuration_are_seen():
    models = compiled(subclassed()), compiled(subclassed(rate=0.5))
    assert found(*models) == {"model.layers.1.rate": ["0.1", "0.5"]}


def test_order_of_the_graph_is_seen():
    paths = found(compiled(graph()), compiled(graph(is_swapped=True)))
    assert any("inbound_nodes" in path for path in paths)


def test_dtypes_are_seen():
    before, now = low_precision(), low_precision()
    now.layers[-1].dtype_policy = "float32"
    assert found(compiled(before), compiled(now)) == {
        "model.layers.1.dtype.name": ["'mixed_bfloat16'", "'float32'"]
    }


def test_frozen_weights_are_seen():
    model = graph()
    model.layers[-1].trainable = False
    paths = found(compiled(graph()), compiled(model))
    assert any(path.startswith("weights") for path in paths)


def test_losses_by_numbered_names_of_outputs():
    def model(weight):
        network = graph()
        names = network.output_names
        return compiled(
            network,
            loss=dict.fromkeys(names, "mse"),
            loss_weights=dict(zip(names, (1.0, weight), strict=True)),
        )

    assert not found(model(2.0), model(2.0))
    assert found(model(2.0), model(3.0)) == {"loss_weights.1": ["2", "3"]}


@pytest.mark.parametrize(
    "before, now, path",
    [
        (custom_loss, "mse", "loss"),
        (
            functools.partial(custom_loss, power=2),
            functools.partial(custom_loss, power=3),
            "loss",
        ),
        (
            keras.losses.Huber(delta=1.0),
            keras.losses.Huber(delta=2.0),
            "loss._fn_kwargs.delta",
        ),
        (Weighted(1.0), Weighted(2.0), "loss.weight"),
        (
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            keras.losses.CategoricalCrossentropy(),
            "loss.label_smoothing",
        ),
    ],
)
def test_losses_are_compared(before, now, path):
    models = (compiled(graph(1), loss=loss) for loss in (before, now))
    assert path in found(*models)


def test_schedules_are_compared():
    def model(steps):
        schedule = keras.optimizers.schedules.CosineDecay(0.1, steps)
        esam = keras_esam.ESAMModel(graph(), rho=schedule, seed=1)
        return compiled(esam, optimizer=keras.optimizers.SGD(schedule))

    assert found(model(100), model(200)) == {
        "model.rho.decay_steps": ["100", "200"],
        "optimizer.learning_rate.decay_steps": ["100", "200"],
    }


class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """Has no configuration."""

    def __init__(self, value):
        self.value = value

    def __call__(self, step):
        return self.value


def test_schedules_without_a_configuration_are_compared():
    def model(rho, rate, momentum):
        esam = keras_esam.ESAMModel(graph(), rho=Constant(rho), seed=1)
        optimizer = keras.optimizers.SGD(Constant(rate), momentum=momentum)
        return compiled(esam, optimizer=optimizer)

    assert not found(model(0.1, 1.0, 0.5), model(0.1, 1.0, 0.5))
    paths = found(model(0.1, 1.0, 0.5), model(0.2, 2.0, 0.9))
    assert {
        "model.rho.value",
        "optimizer.learning_rate",
        "optimizer.momentum",
    } == set(paths)


def test_values_that_a_function_closes_over_are_compared():
    def model(weight):
        def loss(y_true, y_pred):
            return weight * keras.losses.mean_squared_error(y_true, y_pred)

        return compiled(graph(1), loss=loss)

    assert not found(model(1.0), model(1.0))
    assert found(model(1.0), model(2.0)) == {"loss.values.0": ["1", "2"]}


def test_attributes_of_a_subclass_are_compared():
    class Distilled(keras_esam.ESAMModel):
        weight = 1.0

    def model(weight):
        distilled = Distilled(graph(1), seed=1)
        distilled.weight = weight
        return compiled(distilled)

    assert found(model(0.1), model(0.2)) == {"model.weight": ["0.1", "0.2"]}


def test_sets_have_no_order():
    assert training_settings._plain({"b", "a"}, {}) == ["'a'", "'b'"]


def test_what_does_not_change_the_training_is_not_compared():
    kwargs = {"metrics": ["mae"], "run_eagerly": True}
    now = keras_esam.ESAMModel(graph(1), seed=1, name="other")
    before = keras_esam.ESAMModel(graph(1), seed=1)
    assert not found(compiled(before), compiled(now, **kwargs))


def test_arguments_that_one_version_has_are_not_compared():
    before = training_settings.describe(compiled(graph()))
    now = json.loads(json.dumps(before))
    now["optimizer"]["new"] = 1.0
    del now["model"]["layers"][2]["trainable"]
    assert not training_settings.differences(before, now)
