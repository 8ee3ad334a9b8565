"""Checks of arguments. Those of `ESAMModel` return the value to use."""

import functools
import math
import numbers
import random

import keras
import numpy as np

from keras_esam import ascent
from keras_esam import selection
from keras_esam import subsets
from keras_esam import tasks

Schedule = keras.optimizers.schedules.LearningRateSchedule
Stages = keras.optimizers.schedules.PiecewiseConstantDecay

# Characters of a value in an error message.
LONGEST_SHOWN = 200

# Methods of a network that `fit`, `evaluate` and `predict` would call on the
# network itself. The wrapper has its own, so a network that overrides them
# would train differently.
TRAINER_METHODS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "metrics",
    "get_metrics_result",
    "reset_metrics",
    "stateless_compute_loss",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
)


# What is to be known of some of them.
ADVICE = (
    (
        {"compute_loss"},
        "`compute_loss()` along with `compute_sample_losses()`, or with "
        '`gamma=1` or `rank_by="random"`',
    ),
    (
        {"train_step"},
        "`train_step()` with a call of `super().train_step()`, which trains",
    ),
    (
        {*tasks.METHODS},
        "preprocessing may move into the data or into layers of the network",
    ),
)


def check_network(model, wrapper):
    """Checks the network that is to be wrapped in the class `wrapper`."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be an instance of `keras.Model`. "
            f"Received: model={short(model)} of type {type(model)}"
        )
    if isinstance(model, wrapper):
        raise ValueError(
            f"`model` must be a plain network and not an `{wrapper.__name__}`. "
            "To train a wrapped network otherwise, wrap its attribute `model`. "
            f"Received: model={model}"
        )
    methods = TRAINER_METHODS
    if not tasks.is_task(model):
        methods += tasks.METHODS
    overridden = [
        method
        for method in methods
        if getattr(type(model), method) is not getattr(keras.Model, method)
    ]
    if overridden:
        name = wrapper.__name__
        advice = [text for methods, text in ADVICE if methods & {*overridden}]
        raise ValueError(
            f"`model` must not override {overridden}: `{name}` trains with its "
            f"own. Override them in a subclass of `{name}` instead"
            f"{'; '.join(['', *advice])}. Received: model={model}"
        )


def check_together(model):
    """Checks arguments of an `ESAMModel` that depend on each other."""
    selects = min(values_of(model.gamma)) < 1
    if model.ascent == "previous" and selects and model.rank_by == "sharpness":
        raise ValueError(
            '`ascent="previous"` runs no pass at the unperturbed weights, so '
            "the rise of the losses is not known. Use `gamma=1`, "
            '`rank_by="loss"` or `rank_by="random"` with it. '
            f"Received: gamma={shown(model.gamma)}, rank_by={model.rank_by!r}"
        )
    beta = min(values_of(model.beta))
    if beta < subsets.SMALLEST_BETA and model.granularity != "weight":
        raise ValueError(
            f"`beta` must be at least {subsets.SMALLEST_BETA}, since each of "
            "the `1 / beta` subsets has a compiled step. Use "
            '`granularity="weight"` for less. '
            f"Received: beta={shown(model.beta)}, "
            f"granularity={model.granularity!r}"
        )
    size = model.micro_batch_size
    if size is not None and model.ascent == "previous":
        raise ValueError(
            '`ascent="previous"` takes no gradient of the batch, so there is '
            "none of its micro-batches. Use `micro_batch_size=None` with it. "
            f"Received: micro_batch_size={size}"
        )
    if size is not None and model.ascent_scope == "global":
        raise ValueError(
            '`ascent_scope="global"` perturbs by one gradient of all replicas, '
            "`micro_batch_size` by one of a part of a replica's batch. Use one "
            f"of them. Received: micro_batch_size={size}"
        )


def shown(value):
    """A fraction or its stages, for an error message."""
    if isinstance(value, Stages):
        return f"stages {value.values} from steps {value.boundaries}"
    return value


def short(value) -> str:
    """The start of a value's representation, for an error message."""
    text = repr(value)
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


def values_of(value):
    """Values of a fraction: those of its stages, or the constant alone."""
    return value.values if isinstance(value, Stages) else [value]


def check_rho(rho):
    if isinstance(rho, Schedule):
        return rho
    if not _is_number(rho):
        raise TypeError(
            "`rho` must be a number or a `LearningRateSchedule`. "
            f"Received: rho={short(rho)} of type {type(rho)}"
        )
    if not 0 <= rho < math.inf:
        raise ValueError(
            "`rho` must be finite and at least 0; `rho=0` trains with the base "
            f"optimizer. Received: rho={rho}"
        )
    return float(rho)


def check_fraction(name, value):
    # Not a subclass, whose values may be others.
    if type(value) is Stages:
        for stage in value.values:
            check_fraction(name, stage)
        return value
    if not _is_number(value):
        raise TypeError(
            f"`{name}` must be a number or, for a few constant stages, a "
            "`keras.optimizers.schedules.PiecewiseConstantDecay`. "
            f"Received: {name}={short(value)} of type {type(value)}"
        )
    if not 0 < value <= 1:
        instead = ""
        if name == "beta" and value <= 0:
            instead = "; `rho=0` trains with the base optimizer"
        raise ValueError(
            f"`{name}` must be in the range (0, 1]{instead}. "
            f"Received: {name}={value}"
        )
    return float(value)


def check_choice(name, value, choices):
    # An array is not to be compared.
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {choices}. "
            f"Received: {name}={short(value)}"
        )
    return value


def check_boolean(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be a boolean. "
            f"Received: {name}={short(value)} of type {type(value)}"
        )
    return bool(value)


def check_interval(interval):
    if isinstance(interval, bool) or not isinstance(interval, numbers.Integral):
        raise TypeError(
            "`interval` must be an integer. "
            f"Received: interval={short(interval)} of type {type(interval)}"
        )
    if interval < 1:
        raise ValueError(
            "`interval` must be at least 1; `rho=0` trains with the base "
            f"optimizer alone. Received: interval={interval}"
        )
    return int(interval)


def check_micro_batch_size(size):
    if size is None:
        return None
    check_count(micro_batch_size=size)
    return int(size)


def check_seed(seed):
    if seed is None:
        # As Keras does it: `keras.utils.set_random_seed()` makes it known.
        return random.randint(1, 10**9)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(
            "`seed` must be an integer or `None`. "
            f"Received: seed={short(seed)} of type {type(seed)}"
        )
    if not 0 <= seed < 2**31:
        raise ValueError(
            f"`seed` must be in the range [0, 2**31). Received: seed={seed}"
        )
    return int(seed)


def check_positive(**numbers_by_name):
    """Checks that all of the numbers are positive and finite."""
    for name, number in numbers_by_name.items():
        if not _is_number(number):
            raise TypeError(
                f"`{name}` must be a number. "
                f"Received: {name}={short(number)} of type {type(number)}"
            )
        if not 0 < number < math.inf:
            raise ValueError(
                f"`{name}` must be positive and finite. "
                f"Received: {name}={number}"
            )


def check_count(minimum: int = 1, **counts_by_name):
    """Checks that all of the counts are integers of at least `minimum`."""
    for name, count in counts_by_name.items():
        if isinstance(count, bool) or not isinstance(count, numbers.Integral):
            raise TypeError(
                f"`{name}` must be an integer. "
                f"Received: {name}={short(count)} of type {type(count)}"
            )
        if count < minimum:
            raise ValueError(
                f"`{name}` must be at least {minimum}. Received: {name}={count}"
            )


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _choice(name, choices):
    return functools.partial(check_choice, name, choices=choices)


# The attributes of `ESAMModel` that a training step depends on.
CHECKS = {
    "rho": check_rho,
    "beta": functools.partial(check_fraction, "beta"),
    "gamma": functools.partial(check_fraction, "gamma"),
    "granularity": _choice("granularity", subsets.GRANULARITIES),
    "rank_by": _choice("rank_by", selection.RANKINGS),
    "ascent": _choice("ascent", ascent.SOURCES),
    "ascent_scope": _choice("ascent_scope", ascent.SCOPES),
    "micro_batch_size": check_micro_batch_size,
    "interval": check_interval,
    "adaptive": functools.partial(check_boolean, "adaptive"),
    "scale": _choice("scale", ascent.SCALES),
    "seed": check_seed,
}
