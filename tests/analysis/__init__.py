"""What the tests of `keras_esam.analysis` share."""

from tests.backends import BACKEND

# On the other backends Keras computes in float32 here and there.
IS_DOUBLE = BACKEND == "tensorflow"
RTOL = 1e-9 if IS_DOUBLE else 2e-6
# Of finite differences of gradients, which have these errors.
STEP = 1e-5 if IS_DOUBLE else 3e-3
DIFFERENCE_RTOL = 1e-6 if IS_DOUBLE else 1e-3
