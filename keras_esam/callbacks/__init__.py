"""Keras callbacks."""

from keras_esam.callbacks.throughput_logger import ThroughputLogger

__all__ = ["ThroughputLogger"]
