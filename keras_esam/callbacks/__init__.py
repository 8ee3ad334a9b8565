"""Keras callbacks."""

from keras_esam.callbacks.epoch_counter import EpochCounter
from keras_esam.callbacks.throughput_logger import ThroughputLogger

__all__ = ["EpochCounter", "ThroughputLogger"]
