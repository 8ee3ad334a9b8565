"""What a Keras user reads from a model, compared with the bare network."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.backends import tensorflow_only
from tests.networks import PAPER
from tests.networks import SubclassedNetwork
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

layers = keras.layers
X, Y = dense_data(16)
TOKENS = np.arange(96, dtype="int32").reshape(16, 6) % 10


def tokens_network():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(10, 4, name="embedding")(tokens)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    outputs = layers.Dense(3, activation="softmax", name="classes")(x)
    return keras.Model(tokens, outputs, name="network")


def network_of_dicts():
    inputs = {n: keras.Input((4,), name=n) for n in ("a", "b")}
    x = layers.Concatenate()(list(inputs.values()))
    return keras.Model(inputs, {"c": layers.Dense(3)(x), "d": x})


MAKERS = [
    tokens_network,
    network_of_dicts,
    dense_network,
    lambda: keras.Sequential([layers.Dense(3)]),
    SubclassedNetwork,
]
IDS = ["functional", "dicts", "sequential", "not_built", "subclassed"]
NAMES = [
    *("input", "inputs", "input_shape", "output", "outputs", "output_shape"),
    *("operations", "layers"),
]


def value_of(model, name):
    try:
        return repr(getattr(model, name))
    except AttributeError:
        return AttributeError


@pytest.mark.parametrize("make", MAKERS, ids=IDS)
def test_attributes_are_those_of_the_network(make):
    network = make()
    model = esam(network)
    for name in NAMES:
        assert value_of(model, name) == value_of(network, name)


def test_public_names_of_a_network_are_there():
    network = tokens_network()
    names = {name for name in dir(network) if not name.startswith("_")}
    model = esam(network)
    assert all(hasattr(type(model), n) or hasattr(model, n) for n in names)


@pytest.mark.parametrize("make", MAKERS[2:], ids=IDS[2:])
def test_model_as_a_layer_of_another(make):
    model = esam(make())
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, model(inputs))
    assert outer.output_shape == (None, 3)
    np.testing.assert_array_equal(
        outer.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    assert model.output.shape == (None, 3)


def test_layers_by_name_and_place():
    network = tokens_network()
    model = esam(network)
    assert model.get_layer("pool") is network.layers[2]
    assert model.get_layer(index=-1) is network.layers[-1]
    with pytest.raises(ValueError, match="No such layer: dense"):
        model.get_layer("dense")
    for layer in model.layers[:-1]:
        layer.trainable = False
    assert len(model.trainable_variables) == 2


def test_shapes_dtypes_and_parameters():
    network = tokens_network()
    model = esam(network)
    assert model.compute_output_shape((5, 6)) == (5, 3)
    spec = model.compute_output_spec(keras.KerasTensor((5, 6), "int32"))
    assert spec.shape == (5, 3) and spec.dtype == "float32"
    assert model.count_params() == network.count_params()
    assert model.input_dtype == "int32"
    dense = dense_network()
    assert esam(dense).input_dtype == dense.input_dtype


def test_summary_lists_the_layers_of_the_network():
    model = esam(tokens_network())
    lines = []
    model.summary(print_fn=lines.append)
    text = "".join(lines)
    for name in ("tokens", "embedding", "pool", "classes"):
        assert name in text
    assert "(None, 6, 4)" in text and "Total params: 55" in text


def test_models_of_the_same_configuration():
    model = esam(tokens_network(), rho=0.1, seed=3)
    for copy in (
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
    ):
        assert isinstance(copy, keras_esam.ESAMModel)
        assert copy.rho == 0.1 and copy.seed == 3 and copy.built
        assert copy.layers[1] is not model.layers[1]


def test_quantized_model_predicts_as_the_quantized_network():
    model = esam(dense_network())
    network = keras.models.clone_model(model.model)
    network.set_weights(model.model.get_weights())
    for quantized in (model, network):
        quantized.quantize("int8", filters="dense")
    np.testing.assert_array_equal(
        model.predict(X, verbose=0), network.predict(X, verbose=0)
    )


class WithCall(keras_esam.ESAMModel):
    def call(self, inputs, training=None):
        return self.model(inputs[..., :8], training=training)


def test_inputs_of_a_subclass_with_a_call_of_its_own_are_not_known():
    model = WithCall(dense_network())
    for name in NAMES[:-1]:
        with pytest.raises(AttributeError):
            getattr(model, name)
    assert model.layers == model.model.layers


def fit_model(model):
    fit(compile_model(model), X, Y)
    return model


class WithTeacher(keras_esam.ESAMModel):
    def __init__(self, model, **kwargs):
        super().__init__(model, **kwargs)
        self.teacher = dense_network()
        self.teacher.trainable = False


def test_files_have_the_layers_within_the_network(tmp_path):
    path = tmp_path / "a.weights.h5"
    model = fit_model(WithTeacher(dense_network(), **PAPER))
    model.save_weights(path)
    with h5py.File(path) as file:
        assert set(file) == {"layers", "optimizer", "vars"}
        assert set(file["layers"]) == {"sequential", "sequential_1"}
        assert "dense" in file["layers/sequential/layers"]
    other = fit_model(WithTeacher(dense_network(seed=2), **PAPER))
    other.load_weights(path)
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_tensorboard_finds_the_embeddings(tmp_path):
    model = compile_model(esam(tokens_network()))
    callback = keras.callbacks.TensorBoard(
        tmp_path,
        embeddings_freq=1,
        embeddings_metadata={"embedding": "words.tsv"},
    )
    fit(model, TOKENS, Y, callbacks=[callback])
    text = (tmp_path / "projector_config.pbtxt").read_text()
    assert text.count("tensor_name") == 1
    assert 'metadata_path: "words.tsv"' in text
    assert (tmp_path / "train/keras_embedding.ckpt-0.weights.h5").exists()


def tflite_outputs(model, inputs):
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    (details,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], inputs)
    interpreter.invoke()
    (outputs,) = interpreter.get_output_details()
    return interpreter.get_tensor(outputs["index"])


@tensorflow_only
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_converter_to_tensorflow_lite():
    network = SubclassedNetwork()
    network(X)
    outputs = tflite_outputs(esam(network), X)
    np.testing.assert_allclose(outputs, network(X), atol=1e-6)
