"""The package as a user gets it: wheel, dependencies, guides, examples."""

import ast
import functools
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_esam
from examples import digits
from keras_esam.trainers import base_model

ROOT = pathlib.Path(__file__).parents[1]
# The one private module whose functions are called.
SRC = ("keras.src.backend", "keras.src.backend.common.masking")


def run(*command, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        check=True,
        capture_output=True,
        text=True,
        **kwargs,
    ).stdout


def test_wheel_works_from_an_empty_folder(tmp_path):
    run(
        *("-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", tmp_path / "dist", ROOT),
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    run("-m", "pip", "install", "--no-deps", "--target", site, wheel)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import keras, keras_esam, numpy as np\n"
        "print(keras_esam.__file__)\n"
        "network = keras.Sequential([keras.layers.Dense(2)])\n"
        "model = keras_esam.ESAMModel(network)\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)\n"
    )
    output = run(
        *("-c", code),
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert output.startswith(str(site))
    assert {p.name for p in site.iterdir() if p.is_dir()} == {
        "keras_esam",
        f"keras_esam-{keras_esam.__version__}.dist-info",
    }


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{a.name}" for a in node.names)


BACKENDS = {"tensorflow", "jax", "torch"}
# Of the extra `analysis`, imported where they are used.
LAZY = {"PIL", "matplotlib", "scipy"}
LIBRARY = sorted((ROOT / "keras_esam").rglob("*.py"))
# Each imports from those before it only.
ORDER = """
    arguments balanced extras own_calls ascent selection subsets variables
    sample_losses method plan backends momentum rows loss_factors
    micro_batches training_state step dispatcher tasks network_attributes
    trainers esam_model analysis data callbacks models recipes
""".split()


def part_of(path):
    """Name of the module or folder within the package."""
    return path.relative_to(ROOT / "keras_esam").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_imports_run_one_way(path):
    part = part_of(path)
    # The pipelines are TensorFlow's, whatever the backend.
    pipelines = {"tensorflow", "tensorflow_datasets", "sklearn"}
    for name in imports(path):
        package, *parts = name.split(".")
        if package == "keras_esam":
            if part not in ("__init__", parts[0]):
                assert ORDER.index(parts[0]) < ORDER.index(part)
        elif package in BACKENDS:
            # The backend is left to the user: modules of its name know it,
            # and functions that ask for it first.
            assert (
                path.name.startswith(f"{package}_")
                or part == "data"
                or f"\nimport {package}" not in path.read_text()
            )
        else:
            assert (
                package in sys.stdlib_module_names
                or package in ("keras", "numpy")
                or (part == "analysis" and package in LAZY)
                or (part == "data" and package in pipelines)
                or (path.stem == "imagenet_resnet" and package == "keras_cv")
            )


def test_import_brings_nothing_but_keras_and_takes_a_tenth_of_a_second(
    tmp_path,
):
    # Keras itself may bring SciPy. Python reads compiled files, as for a user.
    code = f"""
import compileall, sys, time, keras, numpy
sys.modules.update(dict.fromkeys({sorted(LAZY)}))
sys.pycache_prefix = {str(tmp_path)!r}
compileall.compile_dir("keras_esam", quiet=2)
before = set(sys.modules)
begin = time.process_time()
import keras_esam
seconds = time.process_time() - begin
import keras_esam.analysis
new = set(sys.modules) - before
import keras_esam.data
assert "tensorflow_datasets" not in sys.modules
print(seconds, *{{name.split(".")[0] for name in new}})
"""
    seconds, *new = run("-c", code, cwd=ROOT).split()
    assert "keras_esam" in new
    assert not set(new) & (BACKENDS - {keras.backend.backend()})
    assert float(seconds) < 0.1


def definitions(tree):
    """Names that a module defines, or assigns to as attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign) and "__slots__" in ast.unparse(node):
            yield from ast.literal_eval(node.value)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(
            node.ctx, ast.Store
        ):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                yield node.attr


def private_names():
    """Private names of other libraries in the source of the package."""
    trees = [ast.parse(path.read_text()) for path in LIBRARY]
    ours = {name for tree in trees for name in definitions(tree)}
    of_keras = set(dir(keras.Model)) | set(dir(keras.Sequential()))
    for tree in trees:
        for node in ast.walk(tree):
            name = getattr(node, "attr", getattr(node, "name", None))
            if isinstance(node, ast.ImportFrom):
                # Modules that are private, as `keras.src`.
                assert not {"src", "python"} & set(node.module.split("."))
            elif isinstance(node, ast.Attribute) and "keras.src" in ast.unparse(
                node
            ):
                if ast.unparse(node.value) in SRC and name != "common":
                    yield name
            elif isinstance(node, (ast.Attribute, ast.FunctionDef)):
                if name.startswith("_") and not name.startswith("__"):
                    if name not in ours or name in of_keras:
                        yield name


def test_private_names_of_other_libraries_are_listed():
    """None of them is promised; the list is in `base_model`."""
    listed = set(re.findall(r"`(\w+)`", base_model.__doc__.split("names:")[1]))
    # `_replace` is a public method of named tuples.
    assert set(private_names()) - {"_replace"} == listed
    assert len(listed) <= 15


def test_private_names_are_there():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    owners = [model, model._compile_loss, keras.Model.build]
    owners += [keras.src.backend, keras.src.backend.common.masking]
    # Of named tuples, and on JAX.
    for name in set(private_names()) - {"_replace", "_jax_state"}:
        assert any(hasattr(owner, name) for owner in owners)


def test_nothing_of_another_library_is_replaced():
    """No assignment to an attribute of an imported module or its classes."""
    for path in LIBRARY:
        tree = ast.parse(path.read_text())
        modules = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(
                node.ctx, ast.Store
            ):
                root = ast.unparse(node).split(".")[0]
                assert root not in modules


def test_guides_explain_every_argument_and_key():
    guide = (ROOT / "docs/guides/choose.md").read_text()
    for name in inspect.signature(keras_esam.ESAMModel).parameters:
        if name not in ("model", "name"):
            assert f"| `{name}` |" in guide
    guide = (ROOT / "docs/guides/logs.md").read_text()
    for key in ("loss", "sharpness", "images_per_second"):
        assert f"`{key}`" in guide


def test_defaults_in_the_docstring_are_the_real_ones():
    docstring = inspect.getdoc(keras_esam.ESAMModel)
    for name, parameter in inspect.signature(
        keras_esam.ESAMModel
    ).parameters.items():
        if parameter.default is inspect.Parameter.empty or name == "name":
            continue
        text = docstring.split(f"\n    {name}: ")[1].split("\n\n")[0]
        text = re.split(r"\n    \w+: ", text)[0]
        value = parameter.default
        shown = f'"{value}"' if isinstance(value, str) else value
        assert f"Defaults to `{shown}`." in " ".join(text.split())


def test_digits_example_writes_its_results(tmp_path, monkeypatch, capsys):
    small = functools.partial(digits.make_network, width=2)
    monkeypatch.setattr(digits, "make_network", small)
    options = ["--epochs", "2", "--seeds", "0", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["digits", *options])
    digits.main()
    output = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == list(digits.METHODS)
    assert list(results["summary"]) == list(digits.METHODS)
    for method in results["summary"]:
        assert (tmp_path / f"{method}_seed0.csv").exists()
        assert re.search(rf"^{method} .*%.*%.*x", output, re.MULTILINE)
    picture = (tmp_path / "accuracy_throughput.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert str(tmp_path / "results.json") in output
