"""What makes two trainings the same: the settings of a compiled model.

They are plain values for JSON: the configurations of the model, its network,
the optimizer and the loss, and the shapes of weights. Left out is what does not
change the training: metrics, whether and by what the step is compiled, and all
names, since Keras numbers those of layers through the whole process. Functions
count by their name and the plain values that they close over.
"""

import re
import types
import warnings

import keras
import numpy as np

from keras_esam import arguments
from keras_esam.esam_model import ESAMModel

IGNORED_OF_COMPILE = "metrics", "weighted_metrics", "run_eagerly", "jit_compile"
NUM_LISTED = 5
PLAIN = bool, int, float, str
OF_SHAPES = "weights", "optimizer_variables"
# Shapes are among those of the weights; here they may have the batch size.
IGNORED_OF_CONFIG = "name", "build_input_shape"
# Their configuration has a seed that they drew themselves.
DRAW_THEIR_SEED = "RandomCrop", "RandomDeletion", "RandomSwap"


def describe(model: keras.Model) -> dict:
    """The settings of the training of a compiled model, as they are now."""
    compiled = {
        **_config_of(model.get_compile_config),
        "optimizer": getattr(model, "optimizer", None),
        "loss": getattr(model, "loss", None),
    }
    names = getattr(model, "output_names", None) or []
    for key in ("loss", "loss_weights"):
        compiled[key] = _by_output(compiled.get(key), names)
    network = model.model if isinstance(model, ESAMModel) else model
    weights = [
        shape if weight.trainable else f"{shape}, not trainable"
        for shape, weight in zip(
            shapes(network.weights), network.weights, strict=True
        )
    ]
    settings = {
        "model": model,
        **{k: v for k, v in compiled.items() if k not in IGNORED_OF_COMPILE},
        "weights": weights,
    }
    return _plain(settings, {})


def shapes(variables: list) -> list[str]:
    """Shape and dtype of each variable."""
    return [
        f"{tuple(v.shape)} {keras.backend.standardize_dtype(v.dtype)}"
        for v in variables
    ]


def differences(before, now, path: str = "") -> list[tuple]:
    """Where two settings differ.

    Args:
        before: Settings, or a part of them.
        now: The same part of others.
        path: String, the place of this part.

    Returns:
        List of tuples `(path, value before, value now)`.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = _keys_to_compare(before, now, is_whole=not path)
        pairs = {key: (before.get(key), now.get(key)) for key in keys}
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
    ):
        pairs = dict(enumerate(zip(before, now, strict=True)))
    # By `repr` NaN equals NaN.
    elif before == now or repr(before) == repr(now):
        return []
    else:
        return [(path, _shown(before), _shown(now))]
    return [
        difference
        for key, pair in pairs.items()
        for difference in differences(*pair, f"{path}.{key}".strip("."))
    ]


def _by_output(values, names):
    """A dict by the names of outputs, by their places instead."""
    if not isinstance(values, dict):
        return values
    return {names.index(k) if k in names else k: v for k, v in values.items()}


def listed(found: list[tuple]) -> str:
    """The first differences, one a line."""
    # Other shapes most often follow from what differs elsewhere.
    causes = [d for d in found if not d[0].startswith(OF_SHAPES)]
    found = causes or found
    lines = [f"- {path}: {now}, not {before}" for path, before, now in found]
    more = [f"- and {len(lines) - NUM_LISTED} more"]
    more = more if len(lines) > NUM_LISTED else []
    return "\n".join([*lines[:NUM_LISTED], *more])


def _keys_to_compare(before, now, is_whole):
    keys = dict.fromkeys((*now, *before))
    if before.get("class") != now.get("class"):
        return ["class"]
    if "class" in now or is_whole:
        # Another version of the class may have other arguments, and not all
        # can always be had.
        keys = [key for key in keys if key in before and key in now]
    # A restored model takes over the one that was drawn before.
    drawn = ["seed"] if now.get("has_drawn_seed") else []
    return [key for key in keys if key not in ("has_drawn_seed", *drawn)]


def _shown(value):
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, dict) and "class" in value:
        return value["class"]
    text = repr(value)
    if len(text) <= 60:
        return text
    if isinstance(value, list):
        return f"{len(value)} values"
    return f"{text[:57]}..."


def _plain(value, places):
    """A value of a configuration for JSON.

    Args:
        value: Any object.
        places: Dict, the place of each layer of a functional network by name.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        if {"class_name", "config"} <= set(value):
            return _plain_serialized(value, places)
        if set(value) == {"name", "seed"}:  # Of a seed generator.
            return {"seed": value["seed"]}
        return {str(k): _plain(v, places) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, places) for v in _by_place(value, places)]
    if isinstance(value, (np.ndarray, np.generic)) or keras.ops.is_tensor(
        value
    ):
        return keras.ops.convert_to_numpy(value).tolist()
    if isinstance(value, (set, frozenset)):
        # Their order is another one in each process.
        return sorted(map(repr, value))
    if hasattr(value, "get_config") and not isinstance(value, type):
        return _plain_config(type(value).__name__, _config(value), places)
    if isinstance(value, types.FunctionType):
        return _function(value)
    name = getattr(value, "__name__", None)
    # Of objects in it the address is of this process.
    return name or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _function(function):
    """A function by its name and the plain values that it was made with."""
    cells = [c.cell_contents for c in function.__closure__ or ()]
    values = [*cells, *(function.__defaults__ or ())]
    values = [v for v in values if isinstance(v, PLAIN)]
    if not values:
        return function.__name__
    return {"class": function.__name__, "values": values}


def _plain_serialized(value, places):
    """What `keras.saving.serialize_keras_object()` made of an object."""
    kind, config = value["class_name"], value["config"]
    if kind == "__lambda__":
        return "<lambda>"
    if kind == "__keras_tensor__":
        return _plain(config["keras_history"], places)
    if not isinstance(config, dict):
        return config if kind == "function" else kind
    plain = _plain_config(kind, config, places)
    if "inbound_nodes" in value:
        plain["inbound_nodes"] = _plain(value["inbound_nodes"], places)
    return plain


def _plain_config(kind, config, places):
    layers = config.get("layers")
    if isinstance(layers, (list, tuple)):
        names = [layer.get("name") for layer in layers if type(layer) is dict]
        places = {name: place for place, name in enumerate(names)}
    # The name of a dtype policy is what it is.
    is_policy = "DTypePolicy" in kind
    ignored = () if is_policy else IGNORED_OF_CONFIG
    if kind in DRAW_THEIR_SEED:
        ignored = *ignored, "seed"
    config = {k: v for k, v in config.items() if k not in ignored}
    shape = config.get("batch_shape")
    if isinstance(shape, (list, tuple)):
        config["batch_shape"] = shape[1:]
    return {"class": kind, **_plain(config, places)}


def _by_place(values, places):
    """A reference `(name of a layer, node, tensor)` by the layer's place."""
    is_reference = len(values) == 3 and isinstance(values[0], str)
    if is_reference and values[0] in places:
        return [places[values[0]], *values[1:]]
    return values


def _config(value):
    """The configuration of an object, as much as can be had of it."""
    config = _config_of(value.get_config)
    if isinstance(value, ESAMModel):
        own = {name: getattr(value, name) for name in arguments.CHECKS}
        drawn = value._has_drawn_seed
        own |= {"has_drawn_seed": drawn, "model": value.model}
        return {**_attributes(value, config), **config, **own}
    config = {**_attributes(value, config), **config}
    if isinstance(value, keras.Model) and "layers" not in config:
        # They may be all that there is to compare.
        config["layers"] = value.layers
    return config


def _attributes(value, config):
    """Plain attributes of an object whose configuration may lack some."""
    is_of_keras = type(value).__module__.split(".")[0] in (
        "keras",
        "keras_esam",
    )
    # Keras' `Huber` leaves out a part, which is private.
    is_loss = isinstance(value, keras.losses.Loss)
    if config and is_of_keras and not is_loss:
        return {}
    is_model = isinstance(value, keras.Model)
    ignored = {"built", *(vars(keras.Model()) if is_model else ())}
    found = {
        name: attribute
        for name, attribute in vars(value).items()
        if isinstance(attribute, (*PLAIN, dict))
        and (is_loss or not name.startswith("_"))
        and name not in ignored
    }
    if isinstance(value, keras.optimizers.Optimizer):
        # A schedule without configuration: its rate at this step.
        found["learning_rate"] = value.learning_rate
    return found


def _config_of(method):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas
            return dict(method() or {})
    except Exception:  # Whatever a class of the user raises.
        return {}
