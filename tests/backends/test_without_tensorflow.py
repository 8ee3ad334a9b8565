"""JAX and PyTorch need no TensorFlow on the machine."""

import keras
import pytest

from tests.without import run_without

CODE = """
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
    output = run_without(["tensorflow", "tf_keras"], CODE)
    assert output.split() == ["trained", "on", keras.backend.backend()]
