"""How flat a minimum is: sharpness, curvature, loss landscapes."""

from keras_esam.analysis.batch_halves import BatchHalves
from keras_esam.analysis.batch_halves import batch_halves
from keras_esam.analysis.hessian_eigenvalues import hessian_eigenvalues
from keras_esam.analysis.loss_landscape import Landscape
from keras_esam.analysis.loss_landscape import loss_landscape
from keras_esam.analysis.plot_landscape import plot_landscape
from keras_esam.analysis.sharpness import sharpness

__all__ = [
    "BatchHalves",
    "Landscape",
    "batch_halves",
    "hessian_eigenvalues",
    "loss_landscape",
    "plot_landscape",
    "sharpness",
]
