"""How `ESAMModel` trains with `fit`, one module per Keras backend."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_esam.trainers.tensorflow_model import TensorFlowModel as Model
elif keras.backend.backend() == "jax":
    from keras_esam.trainers.jax_model import JAXModel as Model
else:
    from keras_esam.trainers.torch_model import TorchModel as Model

__all__ = ["Model"]
