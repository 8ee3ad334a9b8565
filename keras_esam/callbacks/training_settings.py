"""The settings of a compiled model, by which two trainings are compared.

They are the configurations of model, optimizer and loss, and the shapes of all
variables, by path: `"model.layers.1.units": 8`. They leave out what does not
change the training: metrics, how the step is compiled, and all names, since
Keras numbers layer names through the whole process. Functions are compared by
their name, default arguments and the plain values that they close over.
"""

import inspect
import json
import re
import types
import warnings

import keras

from keras_esam.esam_model import ESAMModel

# The weights have the shapes already; here they may include the batch size.
IGNORED = "name", "build_input_shape"
# Layers whose configuration has a seed that they drew themselves.
DRAW_THEIR_SEED = "RandomCrop", "RandomDeletion", "RandomSwap"
OF_SHAPES = "weights", "optimizer_variables"
NUM_LISTED = 5
PLAIN = bool, int, float, str, type(None)


def describe(model: keras.Model) -> dict:
    """The settings of a compiled model: a dict of paths to values for JSON.

    A path with other paths below it holds the name of the class, or the number
    of entries.
    """
    optimizer = getattr(model, "optimizer", None)
    names = getattr(model, "output_names", None) or []
    settings = {
        "model": model,
        "optimizer": optimizer,
        "loss": getattr(model, "loss", None),
        "loss_weights": _config(model.get_compile_config).get("loss_weights"),
        "steps_per_execution": model.steps_per_execution,
    }
    for key in ("loss", "loss_weights"):
        if isinstance(settings[key], dict):
            settings[key] = {
                names.index(name) if name in names else name: value
                for name, value in settings[key].items()
            }
    network = model.model if isinstance(model, ESAMModel) else model
    settings["weights"] = _shapes(network.weights)
    if getattr(optimizer, "built", False):
        settings["optimizer_variables"] = _shapes(optimizer.variables)
    return {
        path: value
        for key, setting in settings.items()
        for path, value in _flatten(key, setting, {})
    }


def differences(now: dict, before: dict, changed: dict) -> list[str]:
    """Lists where settings differ from an earlier training, one per line.

    `changed` are the settings that differed from `before` at the end, since
    callbacks change rates; a model that continues training has these. Paths
    that only one training has do not count: another version of a class may have
    other arguments.
    """
    lines = {}
    for path, value in now.items():
        known = [s[path] for s in (before, changed) if path in s]
        # Compared as text, NaN equals NaN.
        same = json.dumps(value) in map(json.dumps, known)
        if known and not same and not path.startswith(tuple(lines)):
            lines[f"{path}."] = (
                f"- {path}: {_shown(value)}, not {_shown(known[0])}"
            )
    # Different shapes mostly follow from other differences.
    causes = [v for k, v in lines.items() if not k.startswith(OF_SHAPES)]
    lines = causes or list(lines.values())
    if len(lines) > NUM_LISTED:
        lines[NUM_LISTED:] = [f"- and {len(lines) - NUM_LISTED} more"]
    return lines


def _shown(value):
    text = f"{value:.7g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shapes(variables):
    return {
        index: f"{tuple(v.shape)} {keras.backend.standardize_dtype(v.dtype)}"
        + ("" if v.trainable else ", not trainable")
        for index, v in enumerate(variables)
    }


def _flatten(path, value, places):
    """Yields pairs of a path and a plain value, for a value and all within.

    `places` are the layers' places in a functional network, by name.
    """
    plain, parts = _open(value)
    if isinstance(plain, list) and len(plain) == 3 and plain[0] in places:
        # A reference to a tensor, `[name of a layer, node, tensor]`.
        plain[0] = places[plain[0]]
    yield path, plain
    inner = places
    if isinstance(parts.get("layers"), (list, tuple)):
        names = [v.get("name") for v in parts["layers"] if type(v) is dict]
        inner = {name: place for place, name in enumerate(names)}
    for key, part in parts.items():
        if key == "seed" and plain in DRAW_THEIR_SEED:
            continue
        # The name of a dtype policy is its identity.
        if key in IGNORED and "DTypePolicy" not in str(plain):
            continue
        if key == "batch_shape" and part:
            part = part[1:]
        within = places if key == "inbound_nodes" else inner
        yield from _flatten(f"{path}.{key}", part, within)


def _open(value):
    """A JSON value that represents a value, and a dict of its parts."""
    if isinstance(value, PLAIN):
        return value, {}
    if isinstance(value, dict):
        if {"class_name", "config"} <= value.keys():
            return _open_serialized(value)
        return f"{len(value)} values", value
    if isinstance(value, (list, tuple)):
        if all(isinstance(part, PLAIN) for part in value):
            return list(value), {}
        return f"{len(value)} values", dict(enumerate(value))
    if hasattr(value, "get_config") and not isinstance(value, type):
        return type(value).__name__, _config_and_attributes(value)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        given = [*cells, *(value.__defaults__ or ())]
        given = [part for part in given if isinstance(part, PLAIN)]
        return value.__name__, dict(enumerate(given))
    if hasattr(value, "shape"):
        return keras.ops.convert_to_numpy(value).tolist(), {}
    if isinstance(value, (set, frozenset)):
        # Their order differs between processes.
        return sorted(map(repr, value)), {}
    # An object's text has an address of this process.
    name = getattr(value, "__name__", None)
    return name or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)), {}


def _open_serialized(value):
    """The same for a result of `keras.saving.serialize_keras_object()`."""
    kind, config = value["class_name"], value["config"]
    if kind == "__lambda__":
        return "<lambda>", {}
    if kind == "__keras_tensor__":
        return _open(config["keras_history"])
    if not isinstance(config, dict):
        return config if kind == "function" else kind, {}
    return kind, {**config, "inbound_nodes": value.get("inbound_nodes")}


def _config_and_attributes(value):
    """The configuration of an object, as far as it is available."""
    config = _config(value.get_config)
    is_loss = isinstance(value, keras.losses.Loss)
    is_model = isinstance(value, keras.Model)
    is_of_keras = type(value).__module__.startswith(("keras.", "keras_esam."))
    # The configuration of Keras' `Huber` leaves out a part, which is private.
    if is_loss or not (config and is_of_keras):
        ignored = vars(keras.Model()) if is_model else ("built",)
        attributes = {
            name: attribute
            for name, attribute in vars(value).items()
            if isinstance(attribute, (*PLAIN, dict))
            and (is_loss or not name.startswith("_"))
            and name not in ignored
        }
        if isinstance(value, keras.optimizers.Optimizer):
            # A schedule without configuration: its rate at this step.
            attributes["learning_rate"] = value.learning_rate
        config = {**attributes, **config}
    if isinstance(value, ESAMModel):
        names = inspect.signature(ESAMModel).parameters
        config |= {name: getattr(value, name) for name in names}
    elif is_model and "layers" not in config:
        # They may be all there is to compare.
        config["layers"] = value.layers
    return config


def _config(get_config):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas
            return dict(get_config() or {})
    except Exception:  # A user's class may raise anything.
        return {}
