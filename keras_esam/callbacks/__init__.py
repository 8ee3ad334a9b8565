"""Keras callbacks."""

from keras_esam.callbacks.sharpness_logger import SharpnessLogger
from keras_esam.callbacks.throughput_logger import ThroughputLogger

__all__ = ["SharpnessLogger", "ThroughputLogger"]
