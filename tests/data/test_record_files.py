import numpy as np
import pytest
import tensorflow as tf

from keras_esam.data import prepared as module
from keras_esam.data.prepared import record_files
from tests.data.files import write_imagenet

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_imagenet(folder, COUNT)
    return folder


def test_records_are_not_decoded(folder):
    records = record_files("val", folder, None, None)
    assert records.cardinality() == 5
    for number, (contents, label) in enumerate(records.as_numpy_iterator()):
        assert contents.startswith(b"\xff\xd8")
        assert label == number and label.dtype == np.int32


def test_seeds_differ_within_and_between_epochs(folder):
    def seeds(epoch):
        records = record_files("train", folder, 3, tf.Variable(epoch))
        return [tuple(seed) for *_, seed in records.as_numpy_iterator()]

    assert len(set(seeds(0) + seeds(1))) == 2 * COUNT
    assert seeds(1) == seeds(1)


@pytest.fixture
def files(tmp_path):
    """Ten files of four records, numbered."""
    paths = [str(tmp_path / f"{number}.tfrecord") for number in range(10)]
    for number, path in enumerate(paths):
        with tf.io.TFRecordWriter(path) as writer:
            for record in range(4):
                writer.write(str(4 * number + record))
    return paths


def order_of(files, seed=0, epoch=0, size=4):
    records = module._shuffled(
        files, [size] * len(files), seed, tf.Variable(epoch)
    )
    return [int(record) for record, _ in records.as_numpy_iterator()]


def test_order_of_the_files_changes_too(files, monkeypatch):
    """Without the buffer, and with one file at a time, it can be seen."""
    monkeypatch.setattr(module, "BUFFER_SIZE", 1)
    monkeypatch.setattr(module, "NUM_OPEN_FILES", 1)
    orders = {tuple(order_of(files, 0, epoch)) for epoch in range(3)}
    assert len(orders) == 3
    for order in orders:
        parts = np.reshape(order, (10, 4))
        np.testing.assert_array_equal(parts % 4, [[0, 1, 2, 3]] * 10)
        np.testing.assert_array_equal(np.sort(parts[:, 0]), range(0, 40, 4))


def test_order_does_not_depend_on_the_global_seed(files):
    orders = []
    for seed in (0, 1, 2):
        tf.random.set_seed(seed)
        orders.append(tuple(order_of(files)))
    assert len(set(orders)) == 1


def test_no_more_of_a_file_than_its_size(files):
    order = order_of(files, size=3)
    assert sorted(order) == [i for i in range(40) if i % 4 < 3]


def test_records_of_many_files_are_mixed(files):
    first = order_of(files)
    assert sorted(first) == list(range(40))
    assert first == order_of(files)
    assert first != order_of(files, epoch=1)
    assert first != order_of(files, seed=1)
    neighbours = np.diff(first) == 1
    assert neighbours.sum() < 10
