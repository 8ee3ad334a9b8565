"""Sharpness: how much the loss rises at a small distance."""

import keras

from keras_esam import arguments
from keras_esam.analysis import mean_loss


def sharpness(
    model: keras.Model, data, rho: float = 0.05, adaptive: bool = False
) -> float:
    """Rise of the loss at distance `rho` along its gradient.

    This is the first-order estimate of `max L(theta + eps) - L(theta)` over
    `||eps|| <= rho`, with `eps = rho * g / ||g||` and the gradient `g` of the
    whole data's loss. The loss is the one that `evaluate` reports: in inference
    mode, with regularisation. All trainable weights are perturbed. The model's
    variables, metrics and random states do not change.

    Args:
        model: `keras.Model`, built and compiled with the loss to use.
        data: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`; or a finite
            `tf.data.Dataset` or other iterable of batches of this form. It is
            read once and kept in memory.
        rho: Positive float, the distance (l2 norm). Defaults to `0.05`.
        adaptive: Boolean, whether to measure the distance as ASAM does,
            relative to the size of each weight. Defaults to `False`.

    Returns:
        Float, in units of the loss.

    Raises:
        ValueError: If the model is not compiled or not built, if `rho` is not
            positive, or if there are no samples.

    Example:

    ```python
    keras_esam.analysis.sharpness(model, (x_train, y_train), rho=0.05)
    ```

    Reference: [Foret et al., 2021](https://arxiv.org/abs/2010.01412),
    "Sharpness-Aware Minimization for Efficiently Improving Generalization".
    """
    arguments.check_positive("rho", rho)
    adaptive = arguments.check_boolean("adaptive", adaptive)
    of_data = mean_loss.MeanLoss(model, data)
    weights = of_data.weights
    loss, gradients = of_data.gradients(weights)
    at = mean_loss.perturbed(weights, gradients, rho, adaptive)
    return of_data.loss(at) - loss
