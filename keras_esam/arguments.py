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


def check_fraction(name, value):
    if is_stages(value):
        for stage in value.values:
            check_fraction(name, stage)
        return value
    if not is_number(value):
        kinds = (
            "a number or, for a few constant stages, a "
            "`keras.optimizers.schedules.PiecewiseConstantDecay`"
        )
        raise type_error(name, kinds, value)
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


def check_positive(**numbers_by_name):
    """Checks that all numbers are positive and finite."""
    for name, number in numbers_by_name.items():
        if not is_number(number):
            raise type_error(name, "a number", number)
        if not 0 < number < math.inf:
            raise ValueError(
                f"`{name}` must be positive and finite. "
                f"Received: {name}={number}"
            )


def check_integer(**values_by_name):
    for name, value in values_by_name.items():
        if not is_integer(value):
            raise type_error(name, "an integer", value)


def check_count(minimum: int = 1, **counts_by_name):
    """Checks that all counts are integers of at least `minimum`."""
    check_integer(**counts_by_name)
    for name, count in counts_by_name.items():
        if count < minimum:
            raise ValueError(
                f"`{name}` must be at least {minimum}. Received: {name}={count}"
            )


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_integer(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
