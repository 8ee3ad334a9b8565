"""Curvature: the largest eigenvalues of the Hessian."""

import keras
import numpy as np
from keras import ops

from keras_esam import arguments
from keras_esam.analysis.mean_loss import MeanLoss
from keras_esam.extras import requires


def hessian_eigenvalues(
    model: keras.Model,
    data,
    num_eigenvalues: int = 1,
    max_restarts: int = 100,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> np.ndarray:
    """Largest eigenvalues of the Hessian of the loss.

    The loss is the same as in `keras_esam.analysis.sharpness`. The Hessian,
    with respect to all trainable weights, is never formed. SciPy's `eigsh`, the
    Lanczos method with restarts
    ([ARPACK](https://doi.org/10.1137/1.9780898719628)), multiplies it with
    vectors. There are at least `max(2 * num_eigenvalues + 1, 20)` products.
    Each costs about two gradients of the whole data, and a vector of the size
    of the weights in host memory. The model's variables, metrics and random
    states do not change.

    Needs SciPy (`pip install "keras-esam[analysis]"`).

    Args:
        model: `keras.Model`, built and compiled with the loss to use.
        data: Arrays or batches, as for `keras_esam.analysis.sharpness`.
        num_eigenvalues: Integer, less than the number of weights. Defaults to
            `1`.
        max_restarts: Integer, most restarts of the Lanczos method. Defaults to
            `100`.
        tolerance: Positive float, relative accuracy of the eigenvalues. In
            float32 the products are accurate to some 1e-6. Defaults to `1e-4`.
        seed: Integer, seed of the start vector. Defaults to `0`.

    Returns:
        Array, shape `(num_eigenvalues,)`, the algebraically largest eigenvalues
        in descending order, in units of the loss per squared weight.

    Raises:
        ValueError: If an argument is out of range, if the model has float8
            layers, or if a product is not finite.
        scipy.sparse.linalg.ArpackNoConvergence: If the eigenvalues are not
            accurate after `max_restarts`.

    Example:

    ```python
    keras_esam.analysis.hessian_eigenvalues(model, dataset, num_eigenvalues=5)
    ```
    """
    with requires("analysis"):
        from scipy.sparse import linalg

    arguments.check_counts(
        num_eigenvalues=num_eigenvalues, max_restarts=max_restarts
    )
    arguments.check_positive("tolerance", tolerance)
    seed = arguments.check_seed(seed)
    _check_twice_differentiable(model)
    multiply, size, dtype = _hessian(MeanLoss(model, data))
    if num_eigenvalues >= size:
        raise ValueError(
            "`num_eigenvalues` must be less than the number of weights, "
            f"{size}. Received: num_eigenvalues={num_eigenvalues}"
        )
    start = np.random.default_rng(seed).standard_normal(size, dtype)
    if not multiply(start).any():
        # Almost surely the Hessian is zero, which Lanczos can't start from.
        return np.zeros(num_eigenvalues, dtype)
    values = linalg.eigsh(
        linalg.LinearOperator((size, size), matvec=multiply, dtype=dtype),
        k=num_eigenvalues,
        which="LA",
        v0=start,
        maxiter=max_restarts,
        tol=tolerance,
        return_eigenvectors=False,
    )
    return np.sort(values)[::-1]


def _check_twice_differentiable(model):
    float8 = [
        layer.name
        for layer in getattr(model, "_flatten_layers", list)()
        if isinstance(
            layer.dtype_policy, keras.dtype_policies.QuantizedFloat8DTypePolicy
        )
    ]
    if float8:
        raise ValueError(
            "`model` must have no float8 layers, since the Hessian is not "
            "defined through float8 rounding. Copy the weights to a network "
            f"that was not quantized. Received: model={model} with the float8 "
            f"layers {float8}"
        )


def _hessian(mean_loss):
    """The product with flat arrays, their size and their dtype."""
    weights = mean_loss.weights
    mean_loss.gradients(weights)  # Raises an error if gradients get lost.
    shapes = [tuple(weight.shape) for weight in weights]
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    arrays = [ops.convert_to_numpy(weight) for weight in weights]
    is_double = any(array.dtype == np.float64 for array in arrays)
    dtype = np.dtype("float64" if is_double else "float32")

    def multiply(vector):
        parts = np.split(vector.reshape(-1), ends[:-1])
        vectors = [
            ops.convert_to_tensor(part.reshape(shape), dtype=weight.dtype)
            for part, shape, weight in zip(parts, shapes, weights, strict=True)
        ]
        products = mean_loss.hessian_vector_product(weights, vectors)
        product = np.concatenate(
            [ops.convert_to_numpy(p).reshape(-1) for p in products]
        )
        if not np.isfinite(product).all():
            raise ValueError(
                "The Hessian's product with a vector must be finite. Received "
                f"{product}. Has the training diverged?"
            )
        return product.astype(dtype)

    return multiply, int(ends[-1]), dtype
