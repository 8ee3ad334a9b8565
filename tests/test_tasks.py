"""Tasks of KerasHub: trained as they train themselves, raw data included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.networks import esam

keras_hub = pytest.importorskip("keras_hub")

pytestmark = [
    # Of KerasHub's own `fit`, and of its tasks when they are loaded.
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed"),
    pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called"),
]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "good"]
TEXTS = np.array(["a good film", "a film", "good", "film film a a a a"] * 3)
LABELS = np.array([1, 0, 1, 0] * 3)
# TensorFlow traces for longer than it trains here.
RUNS_EAGERLY = keras.backend.backend() == "tensorflow"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 20, 12, 3))


def text_classifier(preprocesses=True):
    keras.utils.set_random_seed(1)
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=WORDS)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=5
    )
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=5,
    )
    return keras_hub.models.BertTextClassifier(
        backbone,
        num_classes=2,
        # On PyTorch masks differ from one run to the next.
        dropout=0.0,
        preprocessor=preprocessor if preprocesses else None,
    )


def image_classifier():
    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
    )
    converter = keras_hub.layers.ViTImageConverter(
        image_size=(8, 8), scale=1 / 255
    )
    return keras_hub.models.ViTImageClassifier(
        backbone,
        num_classes=2,
        preprocessor=keras_hub.models.ViTImageClassifierPreprocessor(converter),
    )


TASKS = [
    pytest.param(text_classifier, TEXTS, LABELS, id="text"),
    pytest.param(image_classifier, IMAGES, LABELS[:8], id="image"),
]


def bare_and_wrapped(make):
    """A task, and one with the same weights in a wrapper with `rho=0`."""
    task = make()
    model = keras_esam.ESAMModel(make(), rho=0)
    for each in (task, model):
        each.compile(run_eagerly=RUNS_EAGERLY)
    return task, model


def assert_equal_weights(task, other):
    for weight, expected in zip(
        other.get_weights(), task.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, expected)


def assert_equal_fits(task, model, *args, **kwargs):
    histories = []
    for each in (task, model):
        keras.utils.set_random_seed(2)
        history = each.fit(*args, batch_size=4, verbose=0, **kwargs).history
        histories.append(history)
    assert histories[0] == histories[1]
    assert_equal_weights(task, model.model)
    return histories[1]


@pytest.mark.parametrize(("make", "x", "y"), TASKS)
def test_raw_data_is_trained_evaluated_and_predicted_as_by_the_task(make, x, y):
    task, model = bare_and_wrapped(make)
    logs = assert_equal_fits(task, model, x, y, validation_data=(x[:4], y[:4]))
    assert "val_sparse_categorical_accuracy" in logs
    expected = task.evaluate(x, y, batch_size=4, verbose=0)
    assert model.evaluate(x, y, batch_size=4, verbose=0) == expected
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), task.predict(x, verbose=0)
    )


def test_raw_batches_are_trained_tested_and_predicted_as_by_the_task():
    results = []
    for model in bare_and_wrapped(text_classifier):
        keras.utils.set_random_seed(2)
        results.append(
            [
                model.train_on_batch(TEXTS, LABELS, return_dict=True),
                model.test_on_batch(TEXTS, LABELS, return_dict=True),
                model.predict_on_batch(TEXTS).tolist(),
            ]
        )
    assert results[0] == results[1]


def test_weights_of_samples_and_a_validation_split_are_those_of_the_task():
    task, model = bare_and_wrapped(text_classifier)
    weights = np.linspace(0, 2, 12).astype("float32")
    split = {"sample_weight": weights, "validation_split": 0.25}
    logs = assert_equal_fits(task, model, TEXTS, LABELS, **split)
    assert "val_loss" in logs


def test_data_sets_are_preprocessed():
    task, model = bare_and_wrapped(text_classifier)
    data = tf.data.Dataset.from_tensor_slices((list(TEXTS), LABELS)).batch(4)
    for each in (task, model):
        keras.utils.set_random_seed(2)
        each.fit(data.repeat(), steps_per_epoch=2, verbose=0)
    assert_equal_weights(task, model.model)
    results = [each.evaluate(data, verbose=0) for each in (task, model)]
    assert results[0] == results[1]


def test_esam_step_is_the_one_of_preprocessed_rows():
    networks = []
    for preprocesses in (True, False):
        network = text_classifier(preprocesses)
        model = esam(network, beta=1, seed=1)
        model.compile(keras.optimizers.SGD(0.5), run_eagerly=RUNS_EAGERLY)
        x = TEXTS
        if not preprocesses:
            x = networks[0].preprocessor(TEXTS.tolist())
            x = keras.tree.map_structure(np.asarray, x)
        for _ in range(2):
            logs = model.train_on_batch(x, LABELS, return_dict=True)
        networks.append(network)
    assert set(logs) == {"loss", "sharpness", "sparse_categorical_accuracy"}
    assert logs["sharpness"] > 0
    assert_equal_weights(*networks)
    untrained, trained = (
        keras.ops.convert_to_numpy(task.output_dense.kernel)
        for task in (text_classifier(), network)
    )
    assert np.any(untrained != trained)


def test_compile_has_the_defaults_of_the_task():
    model = esam(text_classifier())
    model.compile()
    config, expected = (
        each.get_compile_config() for each in (model, model.model)
    )
    for each in (config, expected):
        del each["optimizer"]["config"]["name"]  # Numbered.
    assert config == expected
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, metrics=None)
    assert model.optimizer is optimizer
    config = model.get_compile_config()
    assert config["metrics"] is None and config["loss"] == expected["loss"]
    with pytest.raises(TypeError, match="unexpected keyword"):
        model.compile(bogus=1)


def test_compile_has_the_arguments_of_the_task():
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=5,
    )
    model = esam(keras_hub.models.GPT2CausalLM(backbone))
    model.compile(sampler="greedy")
    assert model.compiled
    assert isinstance(model.model.sampler, keras_hub.samplers.GreedySampler)


def test_task_itself_stays_compiled_as_it_was():
    task = text_classifier()
    optimizer = task.optimizer
    attributes = set(vars(task))
    model = esam(task)
    model.compile("sgd", run_eagerly=RUNS_EAGERLY)
    model.train_on_batch(TEXTS, LABELS)
    assert task.optimizer is optimizer
    assert set(vars(task)) == attributes
    assert task._flatten_layers(include_self=False)[0] is not model


def test_kerashub_finds_no_other_classes_than_its_own():
    model = esam(text_classifier())
    model.compile()
    assert keras_hub.models.BertTextClassifier.__subclasses__() == []


def test_saved_model_is_loaded_with_its_preprocessor(tmp_path):
    model = esam(text_classifier(), rho=0.1)
    model.compile("sgd", metrics=None, run_eagerly=RUNS_EAGERLY)
    model.train_on_batch(TEXTS, LABELS)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.rho == 0.1
    assert loaded.get_compile_config() == model.get_compile_config()
    np.testing.assert_array_equal(
        loaded.predict(TEXTS, verbose=0), model.predict(TEXTS, verbose=0)
    )
    keras.utils.set_random_seed(2)
    model.reset_metrics()  # Keras itself does since 3.15.
    expected = model.train_on_batch(TEXTS, LABELS, return_dict=True)
    # On PyTorch layers without a seed draw from the global generator.
    keras.utils.set_random_seed(2)
    assert loaded.train_on_batch(TEXTS, LABELS, return_dict=True) == expected


def test_task_with_a_training_step_of_its_own_is_refused():
    class Task(keras_hub.models.BertTextClassifier):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    task = text_classifier()
    task = Task(task.backbone, num_classes=2)
    with pytest.raises(ValueError, match="must not override \\['compute_loss'"):
        esam(task)


def test_fit_of_a_compiled_task_in_a_wrapper_that_is_not():
    model = esam(text_classifier())
    with pytest.raises(ValueError, match="does not take over the optimizer"):
        model.fit(TEXTS, LABELS)
