"""What works without optional packages, and the errors where they lack."""

import pathlib
import re
import tomllib

import keras
import pytest

from keras_esam.extras import requires
from tests.without import run_without

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages by the names by which they are imported.
OPTIONAL = [
    *("PIL", "filelock", "importlib_resources", "keras_cv", "matplotlib"),
    *("pandas", "scipy", "sklearn", "tensorflow_datasets", "tf_keras"),
]
COMMANDS = [
    *("benchmarks.accuracy", "benchmarks.pipelines", "benchmarks.profiling"),
    *("benchmarks.speed", "examples.digits", "examples.train_cifar"),
    *("examples.train_imagenet", "benchmarks.paper"),
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


SETUP = """
import keras, numpy as np
import keras_esam
model = keras_esam.ESAMModel(
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
)
model.compile("sgd", "mse")
x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
"""
NAMED = """
    raise SystemExit("no error")
except ImportError as error:
    print(error)
"""
# Package, what it is hidden from, and the extra that has it.
USES = [
    (
        "scipy",
        "keras_esam.analysis.hessian_eigenvalues(model, (x, y))",
        "analysis",
    ),
    (
        "matplotlib",
        "plane = keras_esam.analysis.loss_landscape(model, (x, y), 2)\n"
        "    keras_esam.analysis.plot_landscape({'a': plane}, 'a.png')",
        "analysis",
    ),
    (
        "keras_cv",
        "keras_esam.models.bottleneck_resnet((32, 32, 3), 2)",
        "examples",
    ),
    (
        "sklearn",
        "from keras_esam import data; data.digits('train', 50)",
        "examples",
    ),
    *(
        (name, "import benchmarks.paper.pictures", "benchmarks")
        for name in ("matplotlib", "PIL", "pandas")
    ),
]


@on_tensorflow
@pytest.mark.parametrize("package, use, extra", USES)
def test_error_for_a_missing_package_names_its_extra(package, use, extra):
    code = f"{SETUP}try:\n    {use}{NAMED}"
    output = run_without([package], code, cwd=ROOT)
    assert f"`{package}`, which is not installed" in output
    assert f'`pip install "keras-esam[{extra}]"`' in output


def test_error_for_a_missing_tensorflow_datasets(tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    code = (
        "try:\n    from keras_esam import data\n"
        f"    data.cifar('cifar10', 'train', 8, data_dir={str(tmp_path)!r})"
    )
    output = run_without(["tensorflow_datasets"], code + NAMED, cwd=ROOT)
    assert 'pip install "keras-esam[examples]"' in output


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs TensorFlow itself"
)
def test_error_for_a_missing_tensorflow():
    uses = (
        "import keras_esam.data",
        "keras_esam.callbacks.EpochCounter().epoch",
    )
    for use in uses:
        code = f"import keras_esam\ntry:\n    {use}{NAMED}"
        output = run_without(["tensorflow"], code, cwd=ROOT)
        assert 'pip install "keras-esam[tensorflow]"' in output


def test_extras_that_are_named_have_the_packages():
    pypi = {"PIL": "pillow", "sklearn": "scikit-learn", "keras_cv": "keras-cv"}
    for package, _, extra in USES:
        brought = PROJECT["optional-dependencies"][extra]
        assert pypi.get(package, package) in brought
    for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]:
        for extra in re.findall(r'requires\("(\w+)"\)', path.read_text()):
            assert extra in PROJECT["optional-dependencies"]


def test_other_errors_of_an_import_are_left_alone():
    with pytest.raises(ImportError, match="cannot import name"):
        with requires("analysis"):
            from math import does_not_exist  # noqa: F401
