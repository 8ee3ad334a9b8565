"""Keras callbacks."""

from keras_esam.callbacks.atomic_backup import AtomicBackup
from keras_esam.callbacks.epoch_counter import EpochCounter
from keras_esam.callbacks.sharpness_logger import SharpnessLogger
from keras_esam.callbacks.throughput_logger import ThroughputLogger

__all__ = [
    "AtomicBackup",
    "EpochCounter",
    "SharpnessLogger",
    "ThroughputLogger",
]
