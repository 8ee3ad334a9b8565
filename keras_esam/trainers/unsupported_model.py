"""What `ESAMModel` is on a Keras backend that has no training step here."""

import keras


class UnsupportedModel(keras.Model):
    """Refuses to be made, so that `import keras_esam` works everywhere."""

    def __new__(cls, *args, **kwargs):
        raise ValueError(
            '`ESAMModel` needs the "tensorflow", "jax" or "torch" backend of '
            "Keras. Set it in the environment variable KERAS_BACKEND before "
            "Keras is imported. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )
