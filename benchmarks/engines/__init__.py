"""Functions that depend on the Keras backend, one module for each backend.

Each has `make_data()`, `shuffled_batches()`, `set_threads()`, `devices()`,
`device_memory()`, `trace()` and `count_operations()`.
"""

import importlib
import os

# Memory is measured in other processes than time. This must be set before JAX
# looks for its devices.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras  # noqa: E402

BACKEND = keras.backend.backend()
engine = importlib.import_module(f"benchmarks.engines.{BACKEND}_engine")
