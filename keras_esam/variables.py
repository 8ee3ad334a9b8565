"""Finds a network's weights, those to perturb, and their order."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Variables:
    """The trainable variables of a model, by their indices.

    Args:
        order: Tuple of integers, variables that may be perturbed, in the order
            from the input of the network to its output.
        overwritten: Tuple of integers, variables that are no weights.
        count: Integer, number of all trainable variables.
    """

    order: tuple[int, ...] = ()
    overwritten: tuple[int, ...] = ()
    count: int = 0


def find_variables(model: keras.Model, perturbable=None) -> Variables:
    """Finds the trainable variables of a built model.

    Args:
        model: `keras.Model`.
        perturbable: As the argument of `ESAMModel`.
    """
    trainable = model.trainable_variables
    index = {id(variable): i for i, variable in enumerate(trainable)}
    # Of a frozen model, layers may have been unfrozen since.
    weights = [
        variable
        for variable in graph_order(model)
        if id(variable) in index and is_weight(variable)
    ]
    chosen = weights
    if perturbable == "normalization":
        normalizing = {id(v) for v in _of_normalizations(model)}
        chosen = [v for v in weights if id(v) in normalizing]
    elif perturbable is not None:
        chosen = [v for v in weights if perturbable(v)]
    others = sorted(index.keys() - set(map(id, weights)), key=index.get)
    return Variables(
        order=tuple(index[id(variable)] for variable in chosen),
        overwritten=tuple(index[number] for number in others),
        count=len(trainable),
    )


def _of_normalizations(model):
    """Scales and shifts of layers with `Norm` in their class name."""
    for layer in model._flatten_layers():
        # `SpectralNormalization` has the weights of another layer.
        is_wrapper = isinstance(layer, (keras.Model, keras.layers.Wrapper))
        if "Norm" in type(layer).__name__ and not is_wrapper:
            yield from layer.trainable_variables


def is_weight(variable) -> bool:
    """Whether a trainable variable is a weight, which can be perturbed.

    Others have `overwrite_with_gradient=True`, such as the scales and histories
    of float8 training: the optimizer replaces their values by their gradients.
    """
    return not getattr(variable, "overwrite_with_gradient", False)


def graph_order(layer: keras.layers.Layer) -> list:
    """Trainable variables by their place in a network.

    In functional and Sequential models, nested ones too, variables follow the
    place of their layers in the graph. In other models they follow the order in
    which layers became attributes. Within a layer the order of its variables
    stays. A model's own variables come before its layers' variables.

    Args:
        layer: `keras.Model`, or a layer of one. It must be built.

    Returns:
        List of `layer.trainable_variables`, in that order.
    """
    variables = layer.trainable_variables
    if not isinstance(layer, keras.Model):
        return variables
    nested = [v for child in layer.layers for v in graph_order(child)]
    # A dict drops the repeated variables of a shared layer.
    placed = {id(variable): variable for variable in nested}
    own = [v for v in variables if id(v) not in placed]
    return own + list(placed.values())
