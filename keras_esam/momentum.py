"""The momentum of the gradients, as Keras' optimizers keep it."""

import keras

from keras_esam.backends import backend
from keras_esam.variables import is_weight

# The optimizers, with their subclasses, that keep a mean of the gradients. Muon
# has two kinds of variables, of two scales; RMSprop a mean of its updates.
NAMES = "SGD Adam Adamax Nadam Lamb Lion".split()
OPTIMIZERS = tuple(getattr(keras.optimizers, name) for name in NAMES)


def variables(optimizer, trainable_variables) -> list:
    """The optimizer's variables that hold the momentum of the weights.

    Args:
        optimizer: `keras.optimizers.Optimizer`. It is built if necessary.
        trainable_variables: List of all trainable variables of the model.

    Returns:
        List of variables, `None` for variables that are no weights.

    Raises:
        ValueError: If the optimizer keeps no momentum.
    """
    if not optimizer.built:
        optimizer.build(trainable_variables)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    by_name = {}
    if isinstance(inner, OPTIMIZERS):
        for variable in inner.variables:
            by_name.setdefault(variable.name, []).append(variable)
    found = []
    paths = [weight.path for weight in trainable_variables]
    for weight in trainable_variables:
        # Variables of the same name are in the order of the weights.
        same = by_name.get(f"{weight.path.replace('/', '_')}_momentum", [])
        if len(same) > paths.count(weight.path):
            raise ValueError(
                f'`ascent="momentum"` needs weights with names of their own. '
                f"Received: {len(same)} weights with the path `{weight.path}`, "
                "some of them frozen"
            )
        paths.remove(weight.path)
        found.append(same.pop(0) if same else None)
        if found[-1] is None and is_weight(weight):
            raise ValueError(
                '`ascent="momentum"` needs an optimizer that keeps the '
                "momentum of the gradients, as `SGD(momentum=0.9)` and `Adam` "
                f"do. Received: optimizer={type(inner).__name__}, "
                f"momentum={getattr(inner, 'momentum', None)}"
            )
    return found


def read(optimizer, trainable_variables) -> list:
    """Tensors of the weights' momentum, with the sign of the gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # SGD's momentum includes the sign and the learning rate of its step.
    sign = -1 if isinstance(inner, keras.optimizers.SGD) else 1
    return [
        None if variable is None else sign * backend.value(variable)
        for variable in variables(optimizer, trainable_variables)
    ]
