"""Layers below the lowest perturbed one, which two passes run once.

Compilers merge the equal parts of the clean and the ranking pass by themselves.
PyTorch runs steps eagerly, so there the graph of the network is split.
"""

import keras

from keras_esam.backends import forward_pass
from keras_esam.backends import torch_random


def shared_prefix(model, plan):
    """The part of a network that the clean and the ranking pass share.

    Args:
        model: The `ESAMModel`.
        plan: `StepPlan`.

    Returns:
        A `SharedPrefix`, or `None` if the network has no graph, or more inputs
        and outputs than one, or no tensor on which all perturbed layers depend.
    """
    splits = model._findings.splits
    if plan.subset not in splits:
        variables = model.trainable_variables
        perturbed = {id(variables[index]) for index in plan.subset}
        splits[plan.subset] = None
        if model._calls_network_alone:
            splits[plan.subset] = _split(model.model, perturbed)
    parts = splits[plan.subset]
    return parts and SharedPrefix(*parts)


def _split(network, perturbed):
    """Two models, below and above the perturbed variables, or `None`."""
    inputs = getattr(network, "inputs", None) or ()
    outputs = getattr(network, "outputs", ())
    if len(inputs) != 1 or len(outputs) != 1:
        return None
    calls = {type(keras.Model(inputs, outputs)).call, keras.Sequential.call}
    if type(network).call not in calls:
        return None
    below = []
    for layer in network.layers:
        if not perturbed.isdisjoint(map(id, layer.trainable_variables)):
            break
        below.append(layer)
    for layer in reversed(below):
        try:
            lower = keras.Model(inputs, layer.output, name="lower")
            upper = keras.Model(layer.output, outputs, name="upper")
        except (AttributeError, ValueError):
            continue  # Other tensors reach the upper part too.
        if perturbed.isdisjoint(map(id, lower.trainable_variables)):
            return lower, upper
    return None


class SharedPrefix:
    """Calls a network in two parts, the lower one in the first pass only.

    Args:
        lower: `keras.Model`, from the input on.
        upper: `keras.Model`, from the output of `lower` on.
    """

    def __init__(self, lower, upper):
        self._lower, self._upper = lower, upper
        self._kept = None

    def call(self, x, training, scope):
        """The predictions, within the `RecordingScope` of a pass."""
        if self._kept is None:
            edge = forward_pass.call(self._lower, x, training)
            if not edge.requires_grad:
                self._kept = edge, scope.updates, torch_random.generators()
        else:
            edge, updates, generators = self._kept
            for update in updates:
                scope.add_update(update)
            torch_random.set_generators(generators)
        return forward_pass.call(self._upper, edge, training)
