"""Networks of the paper: parameters, shapes, initial scale, saving."""

import math

import keras
import numpy as np
import pytest

from keras_esam import models
from keras_esam.models import small_images
from tests.backends import tensorflow_only

SMALL = {
    "resnet18": {"width": 4, "depth": 1},
    "wide_resnet": {"width": 1, "depth": 10},
    "pyramid_net": {"width": 12, "depth": 8},
}


def num_trainable(network):
    return sum(math.prod(v.shape) for v in network.trainable_variables)


def assert_logits_alone_are_float32(network):
    *others, last = network.layers
    assert network.output.dtype == last.compute_dtype == "float32"
    assert {layer.compute_dtype for layer in others} == {"bfloat16"}


@pytest.mark.parametrize(
    "name, with_10, with_100",
    [
        ("resnet18", 11_173_962, 11_220_132),
        ("wide_resnet", 36_479_194, 36_536_884),
        ("pyramid_net", 28_485_477, 28_511_307),
    ],
)
def test_trainable_parameters_are_those_of_the_papers(name, with_10, with_100):
    network = getattr(models, name)()
    assert num_trainable(network) == with_10
    features = network.layers[-2].output.shape[-1]
    assert with_10 + 90 * (features + 1) == with_100
    if name == "pyramid_net":
        check_pyramid(network)


def check_pyramid(network):
    """alpha=270 in 54 blocks: 5 filters more in each, 286 at the end."""
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    filters = [layer.filters for layer in convolutions]
    assert len(convolutions) == 109
    assert filters[0] == 16
    assert filters[1::2] == filters[2::2] == list(range(21, 287, 5))
    assert network.layers[-2].output.shape[-1] == 286


@pytest.mark.parametrize(
    "name, size, num_parameters",
    [
        ("resnet50", 50, 25_636_712),
        pytest.param("resnet101", 101, 44_707_176, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("bfloat16")
def test_imagenet_networks_are_those_of_keras_with_float32_logits(
    name, size, num_parameters
):
    network = getattr(models, name)((64, 64, 3))
    assert network.output_shape == (None, 1000)
    # As `keras.applications` documents them.
    assert network.count_params() == num_parameters
    assert_logits_alone_are_float32(network)
    assert network.layers[-1].activation is keras.activations.linear
    convolutions = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    # Four of them are in shortcuts, which do not count.
    assert len(convolutions) - 4 + 1 == size


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("bfloat16")
def test_logits_are_float32_under_mixed_precision(name):
    network = getattr(models, name)((16, 16, 3), **SMALL[name])
    assert_logits_alone_are_float32(network)
    y = network(np.zeros((2, 16, 16, 3), "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"


@tensorflow_only
@pytest.mark.usefixtures("bfloat16")
def test_logits_of_bottleneck_resnet_are_float32_under_mixed_precision():
    network = models.bottleneck_resnet(
        (32, 32, 3), num_classes=7, width=4, blocks=(1, 1, 1, 1)
    )
    assert_logits_alone_are_float32(network)


@tensorflow_only
def test_bottleneck_resnet_has_resnet50s_parameters_and_any_size():
    network = models.bottleneck_resnet()
    assert num_trainable(network) == 25_557_032
    small = models.bottleneck_resnet(
        (32, 32, 3), num_classes=7, width=4, blocks=(1, 1, 2, 1)
    )
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    y = keras.ops.convert_to_numpy(small(x.astype("float32")))
    assert y.shape == (2, 7) and np.all(np.isfinite(y))


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 1, 1, 0)])
def test_bottleneck_resnet_checks_its_blocks(blocks):
    with pytest.raises(ValueError, match="`blocks` must"):
        models.bottleneck_resnet(blocks=blocks)


def test_bottleneck_resnet_has_its_channels_last(monkeypatch):
    monkeypatch.setattr(
        keras.config, "image_data_format", lambda: "channels_first"
    )
    with pytest.raises(ValueError, match="channels last"):
        models.bottleneck_resnet((3, 32, 32))


@pytest.mark.parametrize("name", SMALL)
def test_any_input_size_and_number_of_classes(name):
    shape = (17, 21, 1)
    network = getattr(models, name)(shape, num_classes=3, **SMALL[name])
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    y = keras.ops.convert_to_numpy(network(x))
    assert y.shape == (2, 3) and np.all(np.isfinite(y))


@pytest.mark.parametrize("size", [7, 8])
def test_shortcut_is_a_convolution_with_strides(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3))
    inputs = keras.Input((size, size, 3))
    network = keras.Model(inputs, small_images.conv(inputs, 4, 1, strides=2))
    kernel = keras.ops.convert_to_numpy(network.weights[0])
    expected = x[:, ::2, ::2].astype("float32") @ kernel[0, 0]
    outputs = keras.ops.convert_to_numpy(network(x))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet"])
def test_odd_batches_train(name):
    """With a strided 1x1 convolution they end the process."""
    network = getattr(models, name)((32, 32, 3), **SMALL[name])
    network.compile("sgd", "mse")
    x = np.zeros((5, 32, 32, 3), "float32")
    for _ in range(5):
        loss = network.train_on_batch(x, np.zeros((5, 10)))
        assert np.isfinite(loss)


@pytest.mark.parametrize("name", SMALL)
def test_channels_are_where_keras_says(name):
    make = getattr(models, name)
    expected = num_trainable(make(**SMALL[name]))
    keras.config.set_image_data_format("channels_first")
    try:
        network = make((3, 32, 32), **SMALL[name])
    finally:
        keras.config.set_image_data_format("channels_last")
    assert network.output_shape == (None, 10)
    assert num_trainable(network) == expected


@pytest.mark.parametrize("name", SMALL)
def test_kernels_have_the_scale_of_he_initialisation(name):
    network = getattr(models, name)((8, 8, 3), **SMALL[name])
    ratios = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            ratios.append(kernel.var() * math.prod(kernel.shape[:-1]) / 2)
    assert np.mean(ratios) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    "name, kwargs, error, message",
    [
        ("resnet18", {"width": 0}, ValueError, "`width`.*Received: width=0"),
        ("resnet18", {"num_classes": 2.5}, TypeError, "num_classes=2.5"),
        ("wide_resnet", {"depth": 27}, ValueError, r"6 \* n \+ 4.*depth=27"),
        ("pyramid_net", {"depth": 4}, ValueError, r"6 \* n \+ 2.*depth=4"),
    ],
)
def test_impossible_sizes_are_errors(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        getattr(models, name)(**kwargs)
