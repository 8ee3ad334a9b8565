"""Checks of arguments, with errors in Keras' style."""

import math
import numbers
import random

import keras
import numpy as np

Stages = keras.optimizers.schedules.PiecewiseConstantDecay

# Most characters of a value in an error message.
LONGEST_SHOWN = 200


def short(value) -> str:
    """The start of a value's representation, for an error message."""
    text = repr(value)
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


def type_error(name, expected, value) -> TypeError:
    """The error for an argument of an unexpected type."""
    return TypeError(
        f"`{name}` must be {expected}. "
        f"Received: {name}={short(value)} of type {type(value)}"
    )


def is_stages(value) -> bool:
    """Whether it is constant stages; a subclass may have other values."""
    return type(value) is Stages


def check_fraction(name, value, kinds="a number") -> float:
    if not is_number(value):
        raise type_error(name, kinds, value)
    if not 0 < value <= 1:
        raise ValueError(
            f"`{name}` must be in the range (0, 1]. Received: {name}={value}"
        )
    return float(value)


def check_fraction_or_stages(name, value) -> float | Stages:
    if is_stages(value):
        for stage in value.values:
            check_fraction(name, stage)
        return value
    kinds = (
        "a number or, for a few constant stages, a "
        "`keras.optimizers.schedules.PiecewiseConstantDecay`"
    )
    return check_fraction(name, value, kinds)


def check_choice(name, value, choices):
    # An array can not be compared.
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {choices}. "
            f"Received: {name}={short(value)}"
        )
    return value


def check_boolean(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise type_error(name, "a boolean", value)
    return bool(value)


def check_seed(seed):
    if seed is None:
        # As in Keras: `keras.utils.set_random_seed()` makes it reproducible.
        return random.randint(1, 10**9)
    if not is_integer(seed):
        raise type_error("seed", "an integer or `None`", seed)
    if not 0 <= seed < 2**31:
        raise ValueError(
            f"`seed` must be in the range [0, 2**31). Received: seed={seed}"
        )
    return int(seed)


def check_positive(name, value) -> float:
    if not is_number(value):
        raise type_error(name, "a number", value)
    if not 0 < value < math.inf:
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value}"
        )
    return float(value)


def check_count(name, value, minimum=1) -> int:
    if not is_integer(value):
        raise type_error(name, "an integer", value)
    if value < minimum:
        raise ValueError(
            f"`{name}` must be at least {minimum}. Received: {name}={value}"
        )
    return int(value)


def check_counts(**counts_by_name):
    for name, count in counts_by_name.items():
        check_count(name, count)


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
