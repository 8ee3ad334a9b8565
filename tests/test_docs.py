"""The examples in the documentation run."""

import functools
import importlib
import inspect
import pathlib
import re
import textwrap
import types

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam import data
from keras_esam import recipes
from keras_esam.backends.forward_pass import RecordingScope

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.M | re.S)
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if BLOCK.search(path.read_text())
]
MODULES = [
    path
    for path in sorted((ROOT / "keras_esam").rglob("*.py"))
    if BLOCK.search(path.read_text())
]


def run_blocks(path, namespace):
    blocks = BLOCK.findall(path.read_text())
    for block in blocks:
        exec(compile(textwrap.dedent(block), path.name, "exec"), namespace)
    return len(blocks)


# KerasTuner calls them.
@pytest.mark.filterwarnings("ignore:(currentThread|getName)")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page_run_in_turn(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(page, {}) >= 1


def digits_instead_of(pipeline):
    """Takes the arguments of a pipeline, and no others, for digits."""
    signature = inspect.signature(pipeline)

    def images(*args, **kwargs):
        signature.bind(*args, **kwargs)
        return data.digits("train", 1000)

    return images


@pytest.fixture
def namespace(monkeypatch):
    """What the examples of docstrings take as given, with digits for images."""
    fit = keras_esam.ESAMModel.fit
    cifar = digits_instead_of(data.cifar)
    imagenet = digits_instead_of(data.imagenet)
    monkeypatch.setattr(
        keras_esam.ESAMModel,
        "fit",
        lambda *args, **kwargs: fit(
            *args, **{**kwargs, "epochs": 1, "verbose": 0}
        ),
    )
    monkeypatch.setattr(data, "cifar", cifar)
    small = functools.partial(
        keras_esam.models.resnet18, (8, 8, 1), width=2, depth=1
    )
    monkeypatch.setitem(recipes.MAKERS, "resnet18", small)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model = keras_esam.ESAMModel(network)
    model.compile("sgd", "sparse_categorical_crossentropy")
    dataset = data.digits("train", 1000)
    x, y = (part.numpy() for part in next(iter(dataset)))
    landscape = keras_esam.analysis.loss_landscape(model, (x, y), num_points=3)
    return {
        "keras": keras,
        "keras_esam": keras_esam,
        "np": np,
        "RecordingScope": RecordingScope,
        "data": types.SimpleNamespace(cifar=cifar),
        "cifar": cifar,
        "imagenet": imagenet,
        "digits": data.digits,
        "network": network,
        "model": model,
        "dataset": dataset,
        **{"x": x, "x_train": x, "x_test": x},
        **{"y": y, "y_train": y, "y_test": y},
        "pairs": [(v, v.value) for v in model.trainable_variables],
        "landscape_of_sgd": landscape,
        "landscape_of_esam": landscape,
    }


def test_api_page_names_what_there_is_and_the_notes_on_recipes():
    page = (ROOT / "docs/api.md").read_text()
    names = re.findall("^::: (.+)$", page, re.M)
    assert "keras_esam.recipes" in names
    names.remove("keras_esam.recipes")
    overview = re.findall(r"^\| \[`\S+`\]\[(.+)\] \| (.+) \|$", page, re.M)
    assert sorted(names) == sorted(name for name, _ in overview)
    for name, text in overview:
        module, _, member = name.rpartition(".")
        documented = getattr(importlib.import_module(module), member)
        first = inspect.getdoc(documented).partition("\n\n")[0]
        assert text == " ".join(first.split())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_examples_of_docstrings_run(module, namespace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(module, namespace) >= 1
