"""What is imported when."""

import os
import subprocess
import sys

CODE = """
import sys
import keras_esam
counter = keras_esam.callbacks.EpochCounter()
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"tensorflow", "tensorflow_datasets"}
assert "keras_esam.data" not in sys.modules
counter.on_epoch_begin(3)
import tensorflow as tf
assert isinstance(counter.epoch, tf.Variable) and int(counter.epoch) == 3
import keras_esam.data
assert "tensorflow_datasets" not in sys.modules
print("done")
"""


def test_import_needs_no_more_than_keras():
    # A backend on which Keras itself leaves TensorFlow alone.
    output = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.split() == ["done"]
