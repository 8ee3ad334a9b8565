"""Keras callbacks."""

from keras_esam.callbacks.atomic_backup import AtomicBackup
from keras_esam.callbacks.throughput_logger import ThroughputLogger

__all__ = ["AtomicBackup", "ThroughputLogger"]
