"""Every kind of data that `fit`, `evaluate` and `predict` take."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.networks import NUM_CLASSES
from tests.scenarios import X
from tests.scenarios import Y
from tests.scenarios import compare
from tests.scenarios import fit_and_record

BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in (0, 16, 32)]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, index):
        return BATCHES[index]


class EndlessBatches(Batches):
    def __len__(self):
        raise NotImplementedError

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return BATCHES[index % len(BATCHES)]


def endless_generator():
    while True:
        yield from BATCHES


def data_loader():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(data, batch_size=16)


def data_frame():
    pandas = pytest.importorskip("pandas")
    return {"x": pandas.DataFrame(X), "y": pandas.Series(Y), "batch_size": 16}


def grain_dataset():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(list(zip(X, Y, strict=True))).batch(16)


def tensors():
    convert = keras.ops.convert_to_tensor
    return {"x": convert(X), "y": convert(Y), "batch_size": 16}


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def jax_arrays():
    jax = pytest.importorskip("jax")
    return {"x": jax.numpy.array(X), "y": jax.numpy.array(Y), "batch_size": 16}


SOURCES = {
    "jax_arrays": jax_arrays,
    "data_frame": data_frame,
    "dataset": dataset,
    "dataset_of_unknown_size": lambda: dataset().filter(lambda *_: True),
    "data_loader": data_loader,
    "grain": grain_dataset,
    "py_dataset_in_threads": lambda: Batches(workers=2, max_queue_size=2),
}
ENDLESS = {
    "dataset": lambda: dataset().repeat(),
    "generator": endless_generator,
    "py_dataset": EndlessBatches,
}


def arguments(source):
    return source if isinstance(source, dict) else {"x": source}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("name", SOURCES)
def test_data_of_every_kind(name):
    def scenario(model):
        data = arguments(SOURCES[name]())
        history = model.fit(**data, shuffle=False, verbose=0).history
        scores = model.evaluate(**data, verbose=0)
        data.pop("y", None)
        return history, scores, model.predict(**data, verbose=0)

    history, scores, predictions = compare(scenario)
    assert len(history["sharpness"]) == 1
    assert len(scores) == 2
    assert predictions.shape == (40, NUM_CLASSES)


@pytest.mark.filterwarnings("ignore:`shuffle=True`")
@pytest.mark.parametrize(
    ("name", "steps_per_epoch"),
    [("dataset", 4), ("generator", 1), ("py_dataset", 4)],
)
def test_epochs_of_data_without_an_end(name, steps_per_epoch):
    """An epoch is less than a pass over the batches, or more."""

    def scenario(model):
        make = ENDLESS[name]
        return (
            fit_and_record(
                model,
                make(),
                None,
                epochs=2,
                steps_per_epoch=steps_per_epoch,
                validation_data=make(),
                validation_steps=1,
            ),
            model.evaluate(make(), steps=2, verbose=0, return_dict=True),
            model.predict(make(), steps=2, verbose=0),
        )

    (_, epochs, events), _, predictions = compare(scenario)
    steps = [hook for hook, *_ in events].count("on_train_batch_end")
    assert epochs == [0, 1] and steps == 2 * steps_per_epoch
    assert len(predictions) == 32


def test_data_that_ends_within_an_epoch():
    def scenario(model):
        with pytest.warns(UserWarning, match="ran out of data"):
            return fit_and_record(
                model, dataset(), None, epochs=2, steps_per_epoch=2
            )

    compare(scenario)


def test_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    rows = sparse.csr_matrix(np.where(X > 0, X, 0))
    weight = np.linspace(0.5, 2, 40)

    def make():
        return keras.Sequential([keras.layers.Dense(NUM_CLASSES, "softmax")])

    def scenario(model):
        history = model.fit(
            rows,
            Y,
            sample_weight=weight,
            batch_size=16,
            shuffle=False,
            verbose=0,
        )
        return history.history, model.predict(rows, verbose=0)

    compare(scenario, make)
