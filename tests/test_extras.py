"""What works without optional packages, and the errors where they lack."""

import importlib
import pathlib
import re
import sys
import tomllib

import keras
import numpy as np
import pytest

from examples import train_ray
from keras_esam import analysis
from keras_esam import data
from keras_esam import models
from keras_esam.extras import requires
from tests.networks import esam
from tests.without import run_without

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages by the names by which they are imported.
OPTIONAL = [
    *("PIL", "filelock", "importlib_resources", "keras_cv", "matplotlib"),
    *("pandas", "scipy", "sklearn", "tensorflow_datasets", "tf_keras"),
]
COMMANDS = [
    *("benchmarks.accuracy", "benchmarks.gpu", "benchmarks.pipelines"),
    "benchmarks.profiling",
    *("benchmarks.speed", "examples.digits", "examples.train_cifar"),
    *("examples.train_imagenet", "examples.train_ray", "benchmarks.paper"),
]
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX needs SciPy itself"
)


def test_commands_are_all_that_have_options():
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("benchmarks", "examples", "keras_esam")
        for path in (ROOT / folder).rglob("*.py")
        if "ArgumentParser(" in path.read_text()
    }
    # The parser of both trainings.
    found.remove("examples.fitting")
    found |= {"examples.train_cifar", "examples.train_imagenet"}
    assert {name.removesuffix(".__main__") for name in found} == set(COMMANDS)


@on_tensorflow
@pytest.mark.slow
def test_help_needs_no_optional_package():
    code = f"""
import contextlib, io, runpy
for name in {COMMANDS}:
    sys.argv = [name, "--help"]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code == 0
    assert text.getvalue().startswith("usage: ")
    print(name)
"""
    hidden = [*OPTIONAL, "jax"]
    assert run_without(hidden, code, cwd=ROOT).split() == COMMANDS


def least_squares():
    model = esam(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    model.compile("sgd", "mse")
    return model, (np.ones((4, 2)), np.ones((4, 1)))


def plot(folder):
    points = np.array([-1.0, 1.0])
    plane = analysis.Landscape(points, np.ones((1, 2, 2)), True)
    analysis.plot_landscape({"a": plane}, folder / "a.png")


def read_cifar(folder):
    version = folder / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    data.cifar("cifar10", "train", 8, data_dir=folder)


def import_pictures(folder):
    importlib.import_module("benchmarks.paper.pictures")


# Package, what needs it, and the extra that has it.
USES = [
    (
        "scipy",
        lambda folder: analysis.hessian_eigenvalues(*least_squares()),
        "analysis",
    ),
    ("matplotlib", plot, "analysis"),
    (
        "keras_cv",
        lambda folder: models.bottleneck_resnet((32, 32, 3), 2),
        "examples",
    ),
    ("sklearn", lambda folder: data.digits("train", 50), "examples"),
    ("tensorflow_datasets", read_cifar, "examples"),
    ("matplotlib", import_pictures, "benchmarks"),
    ("PIL", import_pictures, "benchmarks"),
    ("pandas", import_pictures, "benchmarks"),
    ("ray", lambda folder: train_ray.main([]), "ray"),
]


@on_tensorflow
@pytest.mark.parametrize("package, use, extra", USES)
def test_error_for_a_missing_package_names_its_extra(
    package, use, extra, tmp_path, monkeypatch
):
    for name in list(sys.modules):
        if name.startswith((f"{package}.", "benchmarks.paper.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as error:
        use(tmp_path)
    assert f"`{package}`, which is not installed" in str(error.value)
    assert f'`pip install "keras-esam[{extra}]"`' in str(error.value)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs TensorFlow itself"
)
def test_error_for_a_missing_tensorflow():
    uses = (
        "import keras_esam.data",
        "keras_esam.callbacks.EpochCounter().epoch",
    )
    for use in uses:
        code = (
            f"import keras_esam\ntry:\n    {use}\n"
            "except ImportError as error:\n    print(error)\n"
        )
        output = run_without(["tensorflow"], code, cwd=ROOT)
        assert 'pip install "keras-esam[tensorflow]"' in output


def test_extras_that_are_named_have_the_packages():
    pypi = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for package, _, extra in USES:
        name = pypi.get(package, package.replace("_", "-"))
        packages = PROJECT["optional-dependencies"][extra]
        assert name in [package.split("[")[0] for package in packages]
    for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]:
        for extra in re.findall(r'requires\("(\w+)"\)', path.read_text()):
            assert extra in PROJECT["optional-dependencies"]


def test_other_errors_of_an_import_are_left_alone():
    with pytest.raises(ImportError, match="cannot import name"):
        with requires("analysis"):
            from math import does_not_exist  # noqa: F401
