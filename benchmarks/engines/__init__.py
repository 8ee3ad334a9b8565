"""What the benchmarks need of the Keras backend: one module for each.

Each has `make_data()`, `describe()`, `device_memory()`, `trace()` and
`count_operations()`.
"""

import importlib

import keras

BACKEND = keras.backend.backend()
engine = importlib.import_module(f"benchmarks.engines.{BACKEND}_engine")
