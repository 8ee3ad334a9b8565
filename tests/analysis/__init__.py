"""What the tests of `keras_esam.analysis` share."""

from tests.backends import BACKEND

# Keras on JAX computes in float32 here and there, in float64 too.
RTOL = 2e-6 if BACKEND == "jax" else 1e-9
# Of finite differences of gradients, which have these errors.
STEP = 3e-3 if BACKEND == "jax" else 1e-5
DIFFERENCE_RTOL = 1e-3 if BACKEND == "jax" else 1e-6
