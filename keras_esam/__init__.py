"""Sharpness-aware training for Keras: ESAM, SAM and ASAM through `fit`."""

from keras_esam import analysis
from keras_esam import callbacks
from keras_esam import models
from keras_esam import recipes
from keras_esam.esam_model import ESAMModel

__all__ = ["ESAMModel", "analysis", "callbacks", "models", "recipes"]
__version__ = "0.1.0"
