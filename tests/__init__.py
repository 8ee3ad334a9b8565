"""Tests of the package, and how JAX compiles in them."""

import os
import pathlib

# To compile takes most of the time of the tests on JAX. Models of one test
# compile the same steps, and so do other tests and the processes that they
# start. JAX reads this when it is imported.
os.environ |= {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": str(
        pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
    ),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
