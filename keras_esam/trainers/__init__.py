"""The training step of `ESAMModel`, one module per Keras backend."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_esam.trainers.tensorflow_trainer import (
        TensorFlowTrainer as Trainer,
    )
elif keras.backend.backend() == "jax":
    from keras_esam.trainers.jax_trainer import JAXTrainer as Trainer
elif keras.backend.backend() == "torch":
    from keras_esam.trainers.torch_trainer import TorchTrainer as Trainer
else:
    from keras_esam.trainers.unsupported_trainer import (
        UnsupportedTrainer as Trainer,
    )

__all__ = ["Trainer"]
