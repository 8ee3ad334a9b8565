"""The package as a user gets it: wheel, dependencies, README, examples."""

import ast
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
import tensorflow as tf

import keras_esam
from keras_esam.trainers import base_trainer

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_imports_run_one_way(path):
    formulas = {"ascent", "selection", "subsets", "sample_losses"}
    # The pipelines are TensorFlow's, whatever the backend.
    is_data = path.parent.name == "data"
    for name in imports(path):
        package = name.split(".")[0]
        if name == "keras_cv" and path.stem == "imagenet_resnet":
            continue
        if is_data and package in {
            "tensorflow",
            "tensorflow_datasets",
            "sklearn",
        }:
            continue
        assert package in sys.stdlib_module_names or package in {
            "keras",
            "keras_esam",
            "numpy",
            *BACKENDS,
            *(LAZY if path.parent.name == "analysis" else ()),
        }
        # The backend is left to the user: modules of its name know it.
        if package in BACKENDS:
            assert path.name.startswith(f"{package}_")
        if path.stem in formulas:
            assert package != "keras_esam"
        if path.parent.name == "trainers" and package == "keras_esam":
            assert "esam_model" not in name and "callbacks" not in name


def test_import_brings_nothing_but_keras():
    # Keras itself may bring SciPy.
    code = (
        "import sys, keras, numpy\n"
        f"sys.modules.update(dict.fromkeys({sorted(LAZY)}))\n"
        "before = set(sys.modules)\n"
        "import keras_esam.analysis\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})\n"
    )
    new = set(run("-c", code, cwd=ROOT).split())
    assert "keras_esam" in new
    assert not new & (BACKENDS - {keras.backend.backend()})


def test_private_names_of_keras_are_there():
    """Keras promises none of them; the list is in `base_trainer`."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((2, 2)), np.ones((2, 1)))
    owners = [model, model._compile_loss, model.optimizer]
    owners += [keras.Model.build, keras.callbacks.Callback(), keras.Function]
    listed = re.findall(r"`(_[a-z_]+)`", base_trainer.__doc__)
    on_jax = {"_jax_state", "_jax_state_synced"}
    assert len(listed) == 20 and on_jax < set(listed)
    for name in set(listed) - on_jax:
        assert any(hasattr(owner, name) for owner in owners)
    used = set()
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr[0] == "_":
                used.add(node.attr)
    private = {name for name in used if hasattr(keras.Model, name)}
    assert {n for n in private if not n.startswith("__")} <= set(listed)


def test_readme_explains_every_argument_and_key():
    for name in inspect.signature(keras_esam.ESAMModel).parameters:
        if name not in ("model", "name"):
            assert f"| `{name}` |" in README
    for key in ("loss", "sharpness", "images_per_second"):
        assert f"| `{key}` |" in README


def test_readme_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace("[...]", "[keras.layers.Dense(3)]")
    x = np.ones((32, 4), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(32, "int32")))
    exec(code, {"dataset": dataset.batch(8)})
    assert (tmp_path / "network.keras").exists()


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


def test_digits_example_writes_its_results(tmp_path):
    output = run(
        *("-m", "examples.digits", "--epochs", 2, "--seeds", 0),
        *("--out", tmp_path),
        cwd=ROOT,
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == ["SGD", "SAM", "ESAM"]
    assert set(results["summary"]) == {"SGD", "SAM", "ESAM"}
    for method in results["summary"]:
        assert (tmp_path / f"{method}_seed0.csv").exists()
        assert re.search(rf"^{method} .*%.*%.*x", output, re.MULTILINE)
    picture = (tmp_path / "accuracy_throughput.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert str(tmp_path / "results.json") in output
