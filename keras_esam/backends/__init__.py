"""What depends on the backend of Keras, one module for each.

`backend` has the same functions everywhere:

- `value(variable)`: the tensor that a variable holds;
- `forward(model, batch, weights, state, ...)` and `gradients(..., sources)`:
    passes at given values of the variables, of which `check_gradients()`
    checks that no gradient is lost;
- `dense()`, `summed()` and `apply_gradients()` of gradients, `commit()` of
    other state, `where()`, `unscaled_loss()`;
- `batch_size()`, `with_rows()` and `take()` of batches, `each_micro_batch()`;
- `recorded_if()`, `check_random_numbers()`, `begin_micro_batch()`: what passes
    draw and write;
- `compiled()`, `value_and_gradients()`, `hessian_vector_product()` and
    `backward_scope()`: derivatives of functions of tensors, for `analysis`.

`Model` is the `keras.Model` that trains with them.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_esam.backends import tensorflow_backend as backend
elif keras.backend.backend() == "jax":
    from keras_esam.backends import jax_backend as backend
elif keras.backend.backend() == "torch":
    from keras_esam.backends import torch_backend as backend
else:
    # `import keras_esam` works everywhere, `ESAMModel()` does not.
    backend = None

__all__ = ["backend"]
