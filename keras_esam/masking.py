"""Keras' masks of tensors, which on some backends are no attributes of them."""

import keras


def keras_mask(tensor):
    """The mask that Keras keeps for a tensor, or `None`."""
    return keras.src.backend.get_keras_mask(tensor)


def set_keras_mask(tensor, mask):
    """Lets Keras keep a mask for a tensor."""
    keras.src.backend.set_keras_mask(tensor, mask)
