"""Pictures of loss landscapes."""

import pathlib
from collections.abc import Mapping

import numpy as np

from keras_esam.analysis.loss_landscape import Landscape

NUM_LEVELS = 24


def plot_landscape(landscapes: Mapping[str, Landscape], path) -> None:
    """Draws landscapes side by side: surfaces above, contours below.

    All have the same scale of losses, in height and in colour. The colours and
    the contours are spaced logarithmically if the losses are positive and the
    largest is more than ten times the smallest. What is drawn is the mean over
    the draws.

    Needs Matplotlib (`pip install "keras-esam[analysis]"`).

    Args:
        landscapes: Dict of `Landscape` by name, in the order to be drawn.
        path: Path of the picture, with a suffix that Matplotlib knows.

    Raises:
        ValueError: If there are no landscapes, or none has a finite loss.

    Example:

    ```python
    keras_esam.analysis.plot_landscape(
        {"SGD": landscape_of_sgd, "ESAM": landscape_of_esam}, "landscape.png"
    )
    ```
    """
    from matplotlib.figure import Figure

    losses = {
        name: np.ma.masked_invalid(landscape.mean_losses)
        for name, landscape in landscapes.items()
    }
    finite = [mean.compressed() for mean in losses.values()]
    if not finite or not np.concatenate(finite).size:
        raise ValueError(
            "`landscapes` must have finite losses. "
            f"Received: landscapes={landscapes}"
        )
    levels = _levels(np.concatenate(finite))
    count = len(landscapes)
    # Without pyplot, whose figures and backend belong to the user.
    figure = Figure(figsize=(3.6 * count + 1.2, 7.6), layout="constrained")
    contours = []
    for column, (name, landscape) in enumerate(landscapes.items(), start=1):
        surface = figure.add_subplot(2, count, column, projection="3d")
        _draw_surface(surface, landscape, losses[name], levels)
        surface.set_title(f"{name}\n{_describe(landscape)}", fontsize=10)
        contour = figure.add_subplot(2, count, count + column)
        image = _draw_contours(contour, landscape, losses[name], levels)
        contour.set_title(f"{name}, at the weights +", fontsize=10)
        contours.append(contour)
    figure.colorbar(image, ax=contours, label="loss", format="%.3g")
    figure.savefig(pathlib.Path(path), dpi=100)


def _levels(finite):
    low, high = finite.min(), finite.max()
    if low == high:  # a plane has no contours
        high = low + max(abs(low), 1.0) * 1e-3
    # Or else the rims of sharp minima leave one colour for the flat ones.
    space = np.geomspace if 0 < 10 * low < high else np.linspace
    return space(low, high, NUM_LEVELS)


def _norm(levels):
    from matplotlib import colors

    is_linear = np.allclose(np.diff(levels), levels[1] - levels[0])
    kind = colors.Normalize if is_linear else colors.LogNorm
    return kind(levels[0], levels[-1])


def _describe(landscape):
    losses = landscape.mean_losses
    low, high = losses.min(), losses.max()
    draws = len(landscape.losses)
    mean = f", mean of {draws} draws" if draws > 1 else ""
    return f"loss {low:.3g} to {high:.3g}{mean}"


def _draw_surface(axes, landscape, losses, levels):
    first, second = _grid(landscape)
    axes.plot_surface(
        first,
        second,
        losses.filled(np.nan),
        cmap="viridis",
        norm=_norm(levels),
        rcount=len(first),
        ccount=len(first),
        linewidth=0,
    )
    axes.set_zlim(levels[0], levels[-1])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("along $d_1$", fontsize=8)
    axes.set_ylabel("along $d_2$", fontsize=8)
    axes.set_zlabel("loss", fontsize=8)


def _draw_contours(axes, landscape, losses, levels):
    first, second = _grid(landscape)
    image = axes.contourf(
        first, second, losses, levels, cmap="viridis", norm=_norm(levels)
    )
    axes.contour(first, second, losses, levels, colors="k", linewidths=0.3)
    axes.plot(0, 0, "+", color="white", markersize=9)
    unit = "filter norms" if landscape.filter_normalise else "l2 distance"
    axes.set_xlabel(f"along $d_1$, {unit}")
    axes.set_ylabel(f"along $d_2$, {unit}")
    axes.set_aspect("equal")
    return image


def _grid(landscape):
    points = landscape.coordinates
    return np.meshgrid(points, points, indexing="ij")
