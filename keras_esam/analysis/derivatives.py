"""Derivatives of functions of tensors, one module per Keras backend.

Each has the same names:

- `value(variable)`: the tensor that a variable holds.
- `compiled(function)`: a function of nested structures of tensors, compiled
    where the backend compiles.
- `forward(model, batch, weights, state, training)`: as `passes.forward`,
    without `per_sample`; every pass has the same dropout masks.
- `value_and_gradients(function, tensors)`: of a function that returns a scalar
    and a nested structure of other tensors. Returns the scalar, the structure
    and a list of gradients, `None` where there is none.
- `hessian_vector_product(function, tensors, vectors)`: of such a function, a
    list of dense tensors.
- `backward_scope(model)`: context of a gradient computation.
- `check_gradients(model, batch, gradients)`: raises an error if a gradient is
    missing which plain Keras has.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_esam.analysis import tensorflow_derivatives as derivatives
elif keras.backend.backend() == "jax":
    from keras_esam.analysis import jax_derivatives as derivatives
elif keras.backend.backend() == "torch":
    from keras_esam.analysis import torch_derivatives as derivatives
else:
    # `import keras_esam` works everywhere; see `checks.check_model`.
    derivatives = None

__all__ = ["derivatives"]
