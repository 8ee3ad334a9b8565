"""JAX and PyTorch need no TensorFlow on the machine."""

import os
import subprocess
import sys

import keras
import pytest

# As if it were not installed: neither imported nor found.
CODE = """
import sys

class WithoutTensorFlow:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args, **kwargs):
        if name.split(".")[0] in ("tensorflow", "tf_keras"):
            return None
        return self.finder.find_spec(name, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [WithoutTensorFlow(finder) for finder in sys.meta_path]
try:
    import tensorflow
    raise SystemExit("TensorFlow is found.")
except ModuleNotFoundError:
    pass

import keras
import numpy as np

import keras_esam

x, y = np.ones((64, 4), "float32"), np.zeros(64, "int32")
network = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(2)])
model = keras_esam.ESAMModel(network)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("sgd", loss, metrics=["accuracy"])
logger = keras_esam.callbacks.ThroughputLogger()
history = model.fit(x, y, verbose=0, epochs=8, callbacks=[logger])
model.evaluate(x, y, verbose=0)
assert history.history["loss"][-1] < history.history["loss"][0]
assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
print("trained on", keras.backend.backend())
"""

if keras.backend.backend() == "tensorflow":
    pytest.skip("for the other backends", allow_module_level=True)


def test_training_without_tensorflow():
    output = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.split() == ["trained", "on", keras.backend.backend()]
