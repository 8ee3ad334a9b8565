"""What the benchmarks need of the Keras backend: one module for each.

Each has `make_data()`, `devices()`, `device_memory()`, `keep_compiled()`,
`compiled_memory()`, `trace()` and `count_operations()`.
"""

import importlib
import os

# Memory is measured in processes beside the one that measures the time. To be
# set before JAX looks for its devices.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras  # noqa: E402

BACKEND = keras.backend.backend()
engine = importlib.import_module(f"benchmarks.engines.{BACKEND}_engine")
