"""The `ESAMModel` of Keras backends without a training step here."""

import keras


class UnsupportedModel(keras.Model):
    """Can be imported but not made: `import keras_esam` works everywhere."""

    def __new__(cls, *args, **kwargs):
        raise ValueError(
            '`ESAMModel` needs the "tensorflow", "jax" or "torch" backend of '
            "Keras. Set it in the environment variable KERAS_BACKEND before "
            "Keras is imported. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )
