"""Runs the layers below the lowest perturbed one once for two passes.

Compilers merge the equal parts of the clean and the ranking pass by themselves.
PyTorch runs steps eagerly, so the graph of the network is split here.
"""

import weakref

import keras

from keras_esam.backends import forward_pass
from keras_esam.backends import torch_random

# Per network, the two models for each set of perturbed variables.
_splits = weakref.WeakKeyDictionary()


def shared_prefix(model, plan):
    """The `SharedPrefix` of the clean and the ranking pass, or `None`.

    It is `None` if the network has no graph, if its input or output is more
    than one tensor, or if no tensor comes before all perturbed layers.
    """
    if not model._calls_network_alone:
        return None
    variables = model.trainable_variables
    perturbed = frozenset(id(variables[index]) for index in plan.subset)
    known = _splits.setdefault(model.model, {})
    if perturbed not in known:
        known[perturbed] = _split(model.model, perturbed)
    parts = known[perturbed]
    return parts and SharedPrefix(*parts)


def _split(network, perturbed):
    """Two models, below and above the perturbed variables, or `None`."""
    inputs = getattr(network, "input", getattr(network, "inputs", [None])[0])
    outputs = getattr(network, "output", getattr(network, "outputs", [None])[0])
    is_of_keras = type(network).__module__.split(".")[0] == "keras"
    if not is_of_keras or not _are_tensors(inputs, outputs):
        return None
    below = []
    for layer in network.layers:
        if not perturbed.isdisjoint(map(id, layer.trainable_variables)):
            break
        below.append(layer)
    for layer in reversed(below):
        try:
            edge = layer.output
            lower = keras.Model(inputs, edge, name="lower")
            upper = keras.Model(edge, outputs, name="upper")
        except (AttributeError, ValueError):
            continue  # Other tensors reach the upper part too.
        variables = map(id, lower.trainable_variables)
        if _are_tensors(edge) and perturbed.isdisjoint(variables):
            return lower, upper
    return None


def _are_tensors(*values):
    return all(isinstance(value, keras.KerasTensor) for value in values)


class SharedPrefix:
    """Calls a network in two parts, the lower one in the first pass only."""

    def __init__(self, lower, upper):
        self._lower, self._upper, self._kept = lower, upper, None

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
