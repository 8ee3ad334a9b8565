"""Which trainable variables are weights, and their order in a network."""

import keras


def is_weight(variable) -> bool:
    """Whether a trainable variable is a weight, which can be perturbed.

    The others are those with `overwrite_with_gradient=True`, as the scales and
    histories of float8 training: the optimizer replaces their values by their
    gradients.
    """
    return not getattr(variable, "overwrite_with_gradient", False)


def graph_order(layer: keras.layers.Layer) -> list:
    """Trainable variables by their place in a network.

    In functional and Sequential models, nested ones too, that is the place of
    their layers in the graph. In other models it is the order in which layers
    became attributes, and within a layer that of its variables. Variables of a
    model itself come before those of its layers.

    Args:
        layer: `keras.Model`, or a layer of one. It must be built.

    Returns:
        List of `layer.trainable_variables`, in that order.
    """
    variables = layer.trainable_variables
    if not isinstance(layer, keras.Model):
        return variables
    nested = [v for child in layer.layers for v in graph_order(child)]
    # A dict drops what a shared layer brings again.
    placed = {id(variable): variable for variable in nested}
    own = [v for v in variables if id(v) not in placed]
    return own + list(placed.values())
