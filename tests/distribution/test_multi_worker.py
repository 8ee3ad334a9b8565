"""`MultiWorkerMirroredStrategy`, in two processes that talk to one another."""

import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_esam import data
from keras_esam.trainers import tensorflow_workers
from tests.backends import tensorflow_only
from tests.distribution import workers
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

pytestmark = tensorflow_only

RUN = "tests.distribution.multi_worker_run"
TOLERANCE = 1e-5


def load(folder, name):
    with np.load(folder / f"{name}.npz") as results:
        return {key: results[key] for key in results.files}


def load_workers(folder):
    return [
        load(folder, f"worker-{rank}") for rank in range(workers.NUM_WORKERS)
    ]


def assert_close(value, expected, key):
    np.testing.assert_allclose(
        value, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=key
    )


def test_workers_train_as_mirrored_strategy_does(tmp_path):
    mirrored = workers.start([RUN, tmp_path, "compare"], tmp_path, "mirrored")
    started = workers.start_workers([RUN, tmp_path, "compare"], tmp_path)
    workers.finish([mirrored, *started], tmp_path)
    expected = load(tmp_path, "mirrored")
    results = load_workers(tmp_path)
    assert_equal_mirrored(results, expected)
    assert_equal_each_other(results)
    assert_metrics_are_of_all_samples(expected)
    for parts in (results, [expected]):
        assert_batches_are_those_of_one_device(parts)
    for result in results:
        np.testing.assert_array_equal(result["overflow change"], 0)
        assert result["overflow scale"] == 2**14
        assert "same state" in str(result["error other step"])
        assert "must be 1" in str(result["error steps_per_execution"])


def assert_equal_mirrored(results, expected):
    assert any("log sharpness" in key for key in expected)
    for rank, result in enumerate(results):
        for key, value in expected.items():
            if " variable " in key or " statistic " in key:
                assert_close(result[key][0], value[rank], key)
            elif not key.startswith("digits"):
                assert_close(result[key], value, key)


def assert_equal_each_other(results):
    """Except for BatchNormalization's statistics in the step of Keras."""
    first, second = results
    assert first.keys() == second.keys()
    for key in first:
        if not key.startswith(("sgd statistic", "digits")):
            np.testing.assert_array_equal(first[key], second[key], key)


def assert_metrics_are_of_all_samples(result):
    """That they are no mean of what the replicas know each, either."""
    labels, predictions = result["labels"], result["predictions"]
    loss = keras.losses.sparse_categorical_crossentropy(labels, predictions)
    accuracy = np.mean(predictions.argmax(-1) == labels)
    assert_close(result["evaluation"], [np.mean(loss), accuracy], "evaluation")


def assert_batches_are_those_of_one_device(results):
    epoch = tf.Variable(0)
    train = data.digits("train", 50, seed=4, epoch=epoch)
    for number in range(2):
        epoch.assign(number)
        key = f"digits {number}"
        parts = np.concatenate([result[key] for result in results], axis=1)
        whole = np.stack([images for images, _ in train])
        np.testing.assert_array_equal(parts.reshape(whole.shape), whole)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_run_resumes_after_a_worker_was_killed(killed, tmp_path):
    """The chief gets to know of the other's end after 10 seconds."""
    started = workers.start_workers(
        [RUN, tmp_path, "kill"], tmp_path, KILLED=str(killed)
    )
    codes = workers.return_codes(started)
    assert codes[killed] == -signal.SIGKILL
    survivor = 1 - killed
    assert codes[survivor] > 0
    output = (tmp_path / f"worker-{survivor}.txt").read_text()
    assert "UnavailableError" in output

    command = [RUN, tmp_path, "whole", "resume"]
    workers.finish(workers.start_workers(command, tmp_path), tmp_path)
    for result in load_workers(tmp_path):
        keys = [key for key in result if key.startswith("whole")]
        assert len(keys) > 10
        for key in keys:
            for name in ("AtomicBackup", "BackupAndRestore"):
                np.testing.assert_array_equal(
                    result[key.replace("whole", name)], result[key], key
                )
    assert_equal_each_other(load_workers(tmp_path))
    names = {path.name for path in (tmp_path / "atomic").iterdir()}
    assert names == {"epoch-000003"}


@pytest.mark.parametrize(
    "make_strategy",
    [
        tf.distribute.get_strategy,
        lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
        lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
        lambda: tf.distribute.MultiWorkerMirroredStrategy(),
    ],
    ids=["default", "one_device", "mirrored", "one_worker"],
)
def test_other_strategies_have_keras_own_functions(make_strategy, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(tensorflow_workers, "_with_logs_of_shape_1", fail)
    monkeypatch.setattr(tf.distribute.Strategy, "gather", fail)
    monkeypatch.setattr(
        tf.distribute.Strategy,
        "experimental_distribute_values_from_function",
        fail,
    )
    monkeypatch.delenv("TF_CONFIG", raising=False)
    x, y = dense_data(20)
    with make_strategy().scope():
        model = compile_model(esam(dense_network(), beta=1, gamma=1))
    fit(model, x, y, validation_data=(x, y))
    assert model.predict(x, verbose=0).shape == (20, 3)
