"""The loss on a plane through the weights."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_esam import arguments
from keras_esam.analysis import directions
from keras_esam.analysis.mean_loss import MeanLoss


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """Losses on planes through a point in the space of the weights.

    Args:
        coordinates: Array, shape `(num_points,)`, from `-radius` to `radius`.
        losses: Array, shape `(num_draws, num_points, num_points)`:
            `losses[n, i, j]` is the loss at `theta + coordinates[i] * d1 +
            coordinates[j] * d2` with the directions of draw `n`.
        filter_normalise: Boolean. If `True`, the unit of the coordinates is the
            norm of each filter, else the l2 distance in weights.
    """

    coordinates: np.ndarray
    losses: np.ndarray
    filter_normalise: bool

    @property
    def mean_losses(self) -> np.ndarray:
        """Mean over the draws, shape `(num_points, num_points)`."""
        return self.losses.mean(axis=0)


def loss_landscape(
    model: keras.Model,
    data,
    num_points: int = 21,
    radius: float = 1.0,
    filter_normalise: bool = True,
    num_draws: int = 1,
    seed: int = 0,
    verbose: int = 0,
) -> Landscape:
    """Loss on a grid in two random orthogonal Gaussian directions.

    The loss is the same as in `keras_esam.analysis.sharpness`, computed
    `num_draws * num_points**2` times. The model's variables, metrics and random
    states do not change.

    Args:
        model: `keras.Model`, built and compiled with the loss to use.
        data: Arrays or batches, as for `keras_esam.analysis.sharpness`.
        num_points: Integer, points of the grid along each direction. An odd
            number includes the weights themselves. Defaults to `21`.
        radius: Positive float, largest coordinate along a direction. Defaults
            to `1.0`.
        filter_normalise: Boolean. If `True`, each filter of a direction has the
            norm of the filter in the weights, while offsets and
            BatchNormalization weights stay. This makes networks with weights of
            different scales comparable. The directions are orthogonal in each
            filter. If `False`, all weights move, each direction has length 1,
            and coordinates are l2 distances like `rho`. Defaults to `True`.
        num_draws: Integer, number of pairs of directions. Defaults to `1`.
        seed: Integer, seed of the directions. Networks with the same shapes get
            the same Gaussian numbers. Defaults to `0`.
        verbose: `0` or `1`, whether to show a progress bar. Defaults to `0`.

    Returns:
        `Landscape`, with losses of shape `(num_draws, num_points, num_points)`.

    Raises:
        ValueError: If the model is not compiled or not built, if an argument is
            out of range, or if there are no samples.

    Example:

    ```python
    landscape = keras_esam.analysis.loss_landscape(model, dataset)
    keras_esam.analysis.plot_landscape({"ESAM": landscape}, "landscape.png")
    ```

    Reference:

    - [Li et al., 2018](https://arxiv.org/abs/1712.09913), "Visualizing the Loss
        Landscape of Neural Nets"
    """
    arguments.check_count("num_points", num_points, minimum=2)
    arguments.check_count("num_draws", num_draws)
    arguments.check_positive("radius", radius)
    arguments.check_boolean("filter_normalise", filter_normalise)
    seed = arguments.check_seed(seed)
    mean_loss = MeanLoss(model, data)
    coordinates = np.linspace(-radius, radius, num_points)
    bar = keras.utils.Progbar(
        num_draws * num_points, verbose=verbose, unit_name="row"
    )
    losses = np.empty((num_draws, num_points, num_points))
    for draw in range(num_draws):
        rng = np.random.default_rng([seed, draw])
        plane = _directions(model, mean_loss.weights, filter_normalise, rng)
        for row, first in enumerate(coordinates):
            for column, second in enumerate(coordinates):
                losses[draw, row, column] = mean_loss.loss(
                    [
                        weight + float(first) * one + float(second) * other
                        for weight, one, other in zip(
                            mean_loss.weights, *plane, strict=True
                        )
                    ]
                )
            bar.add(1)
    return Landscape(coordinates, losses, bool(filter_normalise))


def _directions(model, weights, filter_normalise, rng):
    """Two lists of tensors with the shapes of the weights."""
    if filter_normalise:
        arrays = [ops.convert_to_numpy(weight) for weight in weights]
        axes = directions.filter_axes(model)
        pair = directions.filter_normalised_pair(arrays, axes, rng)
    else:
        pair = directions.unit_pair([weight.shape for weight in weights], rng)
    return [
        [
            ops.convert_to_tensor(array, dtype=weight.dtype)
            for array, weight in zip(direction, weights, strict=True)
        ]
        for direction in pair
    ]
