"""What an `ESAMModel` saves beside weights, so that a resumed run goes on.

The place in the order of the subsets and in the stages of `beta` and `gamma`;
the states of all random layers, which Keras does not save, so that a resumed
run draws the same dropout masks; the gradient of the last update, for one-step
ESAM, by the place of its weight among all weights, since other layers may be
frozen in the model that loads it.
"""

import numpy as np


def save(model, store):
    """Saves the state of an `ESAMModel`.

    Args:
        model: The `ESAMModel`.
        store: Dict or HDF5 group that takes arrays by name.
    """
    model._read_progress()
    store["seed"] = np.asarray(model.seed)
    store["num_executions"] = np.asarray(model._progress.num_executions)
    store["num_steps"] = np.asarray(model._progress.num_steps)
    for index, variable in enumerate(random_states(model)):
        store[f"random_state_{index}"] = variable
    if model._method.ascent_rule.needs_memory:
        for key, gradient in _previous_gradients(model):
            store[key] = gradient


def check(model, store):
    """Raises an error if a store is not one of such a model.

    Args:
        model: The `ESAMModel`.
        store: Dict or HDF5 group that `save` wrote to.

    Raises:
        ValueError: If the store is that of a plain network, or that of a
            network with other random layers.
    """
    keys = list(store.keys())
    if "num_executions" not in keys:
        raise ValueError(
            f"The file must be one that an `{type(model).__name__}` was "
            "saved to. To load the weights of a plain network, call "
            "`model.model.load_weights()`. "
            f"Received: a file without the state of `{model.name}`"
        )
    num_states = len(random_states(model))
    num_saved = sum(key.startswith("random_state_") for key in keys)
    if num_saved != num_states:
        raise ValueError(
            f"`{model.name}` has {num_states} random states and the file "
            f"has {num_saved}. The saved network had other random layers."
        )


def load(model, store):
    """Restores what `save` saved.

    Args:
        model: The `ESAMModel`.
        store: Dict or HDF5 group that `save` wrote to.
    """
    # Setting it resets the random states, so it comes first.
    has_drawn_seed = model._has_drawn_seed
    model.seed = int(np.asarray(store["seed"]))
    model._has_drawn_seed = has_drawn_seed
    for index, variable in enumerate(random_states(model)):
        variable.assign(store[f"random_state_{index}"])
    model._gradient_memory.clear()
    if model._method.ascent_rule.needs_memory and model.built:
        model._build_gradient_memory()
        saved = set(store.keys())
        for key, gradient in _previous_gradients(model):
            if key in saved:
                gradient.assign(store[key])
    model._progress.num_executions = int(np.asarray(store["num_executions"]))
    model._progress.num_steps = int(np.asarray(store["num_steps"]))
    model._progress.write()


def random_states(model) -> list:
    """The variables of an `ESAMModel` that are states of seeds."""
    others = [*model.weights, *model._training_variables]
    known = {id(variable) for variable in others}
    return [v for v in model.variables if id(v) not in known]


def _previous_gradients(model):
    for index, weight in enumerate(model.model.weights):
        gradient = model._gradient_memory.variable_of(weight)
        if gradient is not None:
            yield f"previous_gradient_{index}", gradient
