"""Curvature: the largest eigenvalues of the Hessian."""

import keras
import numpy as np
from keras import ops

from keras_esam import arguments
from keras_esam.analysis import checks
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

    The loss is that of the whole data, as `evaluate` reports it: in inference
    mode, with regularisation. The Hessian is that with respect to all trainable
    weights. It is never formed; SciPy's `eigsh`, the Lanczos method with
    restarts, multiplies it with vectors. Each product costs about two gradients
    of the whole data. There are at least `max(2 * num_eigenvalues + 1, 20)`
    products, and as many vectors of the size of the weights are held in host
    memory.

    Needs SciPy (`pip install "keras-esam[analysis]"`). Variables, metrics and
    random states of the model stay as they are.

    Args:
        model: `keras.Model`, an `ESAMModel` for instance, built and compiled
            with the loss to use.
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`; or a finite
            `tf.data.Dataset` or other iterable of batches of this form. It is
            read once and kept in memory.
        num_eigenvalues: Integer, less than the number of weights. Defaults to
            `1`.
        max_restarts: Integer, how often the Lanczos method may start again from
            the best vectors so far. Defaults to `100`.
        tolerance: Positive float, relative accuracy of the eigenvalues. In
            float32 the products themselves are accurate to some 1e-6. Defaults
            to `1e-4`.
        seed: Integer, seed of the vector to start from. Defaults to `0`.

    Returns:
        Array, shape `(num_eigenvalues,)`, the algebraically largest eigenvalues
        in descending order, in units of the loss per squared weight.

    Raises:
        ValueError: If an argument is not in its range, if the model has float8
            layers, or if a product is not finite.
        scipy.sparse.linalg.ArpackNoConvergence: If the eigenvalues are not
            accurate after `max_restarts`.

    Example:

    ```python
    keras_esam.analysis.hessian_eigenvalues(model, dataset, num_eigenvalues=5)
    ```

    Reference:

    - [Lehoucq et al., 1998](https://doi.org/10.1137/1.9780898719628), "ARPACK
        Users' Guide: Solution of Large-Scale Eigenvalue Problems"
    """
    with requires("analysis"):
        from scipy.sparse import linalg

    arguments.check_count(
        num_eigenvalues=num_eigenvalues, max_restarts=max_restarts
    )
    arguments.check_positive(tolerance=tolerance)
    seed = arguments.check_seed(seed)
    checks.check_twice_differentiable(model)
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


def _hessian(mean_loss):
    """The Hessian as a function of flat vectors.

    Args:
        mean_loss: `MeanLoss`.

    Returns:
        Tuple of a function of arrays of shape `(num_weights,)`, `num_weights`,
        and the dtype of the arrays.
    """
    weights = mean_loss.weights
    mean_loss.gradients(weights)  # Tells if there are gradients to lose.
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
