"""What a network writes with `tf.summary` is that of the clean pass alone."""

import keras
import pytest
import tensorflow as tf

from tests.backends import tensorflow_only
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

pytestmark = tensorflow_only

METHODS = {
    "base": {"rho": 0.0},
    "ESAM": {"beta": 1},
    "micro-batches": {"beta": 1, "gamma": 1, "micro_batch_size": 4},
}


class Written(keras.layers.Layer):
    def call(self, inputs):
        tf.summary.scalar("mean", tf.reduce_mean(inputs), step=0)
        return inputs


def written(folder):
    return [
        tf.make_ndarray(value.tensor)
        for path in folder.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag.endswith("mean")
    ]


def train(folder, method, records=True, **kwargs):
    x, y = dense_data(32)
    network = dense_network(dropout=False)
    network.add(Written())
    model = esam(network, rho=1.0, seed=1)
    for name, value in method.items():
        setattr(model, name, value)
    compile_to_graph(model, jit_compile=False, **kwargs)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(), tf.summary.record_if(records):
        fit(model, x, y)
    writer.close()
    return written(folder)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_value_a_step(method, tmp_path):
    assert len(train(tmp_path, method)) == 2


def test_nothing_where_a_user_records_nothing(tmp_path):
    assert not train(tmp_path, METHODS["micro-batches"], records=False)


def test_values_are_those_of_the_clean_pass(tmp_path):
    """The first step of the base optimizer has the same weights."""
    base = train(tmp_path / "base", METHODS["base"])
    esam = train(tmp_path / "ESAM", METHODS["ESAM"])
    assert esam[0] == pytest.approx(base[0])
