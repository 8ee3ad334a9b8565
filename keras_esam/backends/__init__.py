"""Functions that depend on the Keras backend, one module for each backend.

Passes:

- `value(variable)`: the tensor that a variable holds;
- `forward(model, batch, weights, state, ...)`: see `forward_pass.forward`;
- `gradients(model, batch, weights, state, sources, valid=None, ...)`: such a
    pass, and the gradients of its loss with respect to the `weights` with the
    indices `sources`. Returns a `ForwardPass` and a list with a tensor or
    `None` for each source, times the optimizer's loss scale. If the scalar
    `valid` is not finite, neither are they;
- `check_gradients(model, batch, weights, state, gradients)`: raises a
    `ValueError` if a weight reaches the loss other than by the values that a
    pass is given, so that its gradient would be lost;
- `recorded_if()`, `check_random_numbers()`, `begin_micro_batch()`,
    `shared_prefix()`: control what passes write, draw and share.

Tensors: `batch_size()`, `with_rows()` and `take()` of batches,
`each_micro_batch()`, `dense()` and `summed()` of gradients.

Updates: `apply_gradients()`, `commit()` of other state, `unscaled_loss()`.

For `analysis`, where `function` maps a list of tensors to a scalar and a nested
structure of other tensors:

- `compiled(function)`;
- `value_and_gradients(function, tensors)`: the scalar, the structure, and a
    list of dense gradients, `None` where there is none;
- `hessian_vector_product(function, tensors, vectors)`: the gradient of the
    gradient's product with the vectors, tensors of the shapes of `tensors`;
- `backward_scope(model)`: context in which gradients are computed.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_esam.backends import tensorflow_backend as backend
elif keras.backend.backend() == "jax":
    from keras_esam.backends import jax_backend as backend
elif keras.backend.backend() == "torch":
    from keras_esam.backends import torch_backend as backend
else:
    raise ImportError(
        '`keras_esam` needs the "tensorflow", "jax" or "torch" backend of '
        "Keras. Set it in the environment variable KERAS_BACKEND before Keras "
        "is imported. "
        f"Received: keras.backend.backend()={keras.backend.backend()!r}"
    )

__all__ = ["backend"]
