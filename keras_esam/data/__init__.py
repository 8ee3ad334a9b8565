"""`tf.data` pipelines of the data sets that the ESAM paper trains on.

They need TensorFlow, whatever the Keras backend, so `import keras_esam` does
not import them. Images have their channels last.
"""

from keras_esam.extras import requires

with requires("tensorflow"):
    from keras_esam.data.cifar import cifar
    from keras_esam.data.class_folders import class_names
    from keras_esam.data.digits import digits
    from keras_esam.data.imagenet import imagenet

__all__ = ["cifar", "class_names", "digits", "imagenet"]
