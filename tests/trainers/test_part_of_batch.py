"""SDS and micro-batches take rows out of a batch, so all tensors need them."""

import keras
import numpy as np
import pytest

from keras_esam.rows import NOTE
from tests.backends import tensorflow_only
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

PARTS = {"SDS": {"gamma": 0.5}, "m": {"gamma": 1, "micro_batch_size": 2}}
WHOLE = {"beta": 1, "gamma": 1}


class Episode(keras.Model):
    """Classifies 4 queries relative to the mean of some examples."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs):
        mean = keras.ops.mean(self.dense(inputs["support"]), axis=0)
        return self.dense(inputs["query"]) - mean


def compiled(**kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = esam(Episode(), **kwargs)
    model.compile("sgd", loss, run_eagerly=True)
    return model


def episode(num_examples=6):
    rng = np.random.default_rng(0)
    x = {
        "query": rng.normal(size=(4, 8)).astype("float32"),
        "support": rng.normal(size=(num_examples, 8)).astype("float32"),
    }
    return x, np.arange(4) % 3


class Episodes(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return episode(6 + 3 * index)


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_unequal_rows_are_refused(part):
    x, y = episode()
    model = compiled(**part)
    with pytest.raises(ValueError) as error:
        model.train_on_batch(x, y)
    message = str(error.value)
    assert (
        "`gamma=1`, `ascent_fraction=1` and `micro_batch_size=None`" in message
    )
    assert "(4, 8), (6, 8), (4,)" in message


def test_unequal_rows_train_as_a_whole():
    model = compiled(**WHOLE)
    logs = model.fit(Episodes(), verbose=0, shuffle=False).history
    assert np.isfinite(logs["sharpness"][0])


@tensorflow_only
@pytest.mark.parametrize(
    ("part", "jit_compile"), [(PARTS["SDS"], True), (PARTS["m"], False)]
)
def test_unequal_rows_of_unknown_number_are_an_error_of_the_step(
    part, jit_compile
):
    import tensorflow as tf

    x, y = episode()
    signature = {
        name: tf.TensorSpec((None, 8), "float32")
        for name in ("query", "support")
    }
    data = tf.data.Dataset.from_generator(
        lambda: [(x, y)],
        output_signature=(signature, tf.TensorSpec((None,), "int64")),
    )
    model = compiled(**part)
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    # Of the assertion, or of the note where XLA drops that.
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        model.fit(data, verbose=0)
    notes = getattr(error.value, "__notes__", [])
    message = " ".join([str(error.value), *notes])
    assert (
        "`gamma=1`, `ascent_fraction=1` and `micro_batch_size=None`" in message
    )


class InBatchNegatives(keras.losses.Loss):
    """The target of each sample is the place of another one in the batch."""

    def call(self, y_true, y_pred):
        scores = keras.ops.matmul(y_pred, keras.ops.transpose(y_pred))
        size = keras.ops.shape(y_pred)[0]
        targets = keras.ops.eye(16)[:, :size]
        return keras.losses.categorical_crossentropy(
            targets, scores, from_logits=True
        )


def test_shape_error_of_a_loss_of_whole_batches_names_sds():
    x, y = dense_data(16)
    model = esam(dense_network(), rank_by="random")
    compile_model(model)
    model.compile("sgd", InBatchNegatives(), run_eagerly=True)
    with pytest.raises(Exception) as error:
        fit(model, x, y)
    assert error.value.__notes__.count(NOTE) == 1


def test_errors_that_a_part_of_the_batch_does_not_cause_do_not_name_it():
    class Broken(keras.layers.Layer):
        is_broken = False

        def call(self, inputs):
            if self.is_broken:
                raise ValueError("broken")
            return inputs

    x, y = dense_data(16)
    model = esam(keras.Sequential([keras.layers.Dense(3), Broken()]))
    model(x)
    Broken.is_broken = True
    compile_model(model)
    with pytest.raises(ValueError, match="broken") as error:
        fit(model, x, y)
    assert NOTE not in getattr(error.value, "__notes__", [])


@tensorflow_only
@pytest.mark.parametrize("batch_size", [None, 4])
def test_scalars_in_a_batch_are_refused(batch_size):
    import tensorflow as tf

    x = {"a": tf.zeros((4, 8)), "t": tf.constant(1.0)}
    data = tf.data.Dataset.from_tensors((x, tf.range(4) % 3))
    if batch_size is None:
        signature = (
            {"a": tf.TensorSpec((None, 8)), "t": tf.TensorSpec(())},
            tf.TensorSpec((None,), "int32"),
        )
        data = tf.data.Dataset.from_generator(
            lambda: iter([(x, tf.range(4) % 3)]), output_signature=signature
        )
    inputs = {"a": keras.Input((8,), name="a")}
    inputs["t"] = keras.Input(batch_shape=(), name="t")
    scaled = inputs["a"] * inputs["t"]
    outputs = keras.layers.Dense(3, activation="softmax")(scaled)
    model = esam(keras.Model(inputs, outputs))
    compile_model(model)
    with pytest.raises(ValueError, match="samples as their rows"):
        model.fit(data, verbose=0)
