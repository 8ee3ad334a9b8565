"""Checks of the arguments of `ESAMModel`. Each returns the value to use."""

import math
import numbers
import random

import numpy as np


def check_rho(rho):
    if not _is_number(rho):
        raise TypeError(
            f"`rho` must be a number. Received: rho={rho!r} of type {type(rho)}"
        )
    if not 0 <= rho < math.inf:
        raise ValueError(
            "`rho` must be finite and at least 0; `rho=0` trains with the base "
            f"optimizer. Received: rho={rho}"
        )
    return float(rho)


def check_fraction(name, value):
    if not _is_number(value):
        raise TypeError(
            f"`{name}` must be a number. "
            f"Received: {name}={value!r} of type {type(value)}"
        )
    if not 0 < value <= 1:
        raise ValueError(
            f"`{name}` must be in the range (0, 1]. Received: {name}={value}"
        )
    return float(value)


def check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {choices}. Received: {name}={value!r}"
        )
    return value


def check_boolean(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be a boolean. "
            f"Received: {name}={value!r} of type {type(value)}"
        )
    return bool(value)


def check_seed(seed):
    if seed is None:
        # As Keras does it: `keras.utils.set_random_seed()` makes it known.
        return random.randint(1, 10**9)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(
            "`seed` must be an integer or `None`. "
            f"Received: seed={seed!r} of type {type(seed)}"
        )
    if not 0 <= seed < 2**31:
        raise ValueError(
            f"`seed` must be in the range [0, 2**31). Received: seed={seed}"
        )
    return int(seed)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
