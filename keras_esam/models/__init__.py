"""Networks of the ESAM paper, with logits as outputs and random weights."""

from keras_esam.models.imagenet_resnet import bottleneck_resnet
from keras_esam.models.imagenet_resnet import resnet50
from keras_esam.models.imagenet_resnet import resnet101
from keras_esam.models.small_images import pyramid_net
from keras_esam.models.small_images import resnet18
from keras_esam.models.small_images import wide_resnet

__all__ = [
    "bottleneck_resnet",
    "pyramid_net",
    "resnet18",
    "resnet50",
    "resnet101",
    "wide_resnet",
]
