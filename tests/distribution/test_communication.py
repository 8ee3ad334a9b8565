"""What two replicas send one another in a step, by hand."""

import json

import pytest

from tests.backends import tensorflow_only
from tests.distribution.workers import finish
from tests.distribution.workers import start

# Kernel, bias, scale, offset, kernel and bias, in float32.
VARIABLES = [4 * n for n in (5 * 8, 8, 8, 8, 8 * 3, 3)]
GRADIENT = sum(VARIABLES)
# Subsets of the last 1, 2, 4, 5 and 6 of the variables.
SUBSET = sum(sum(VARIABLES[-n:]) for n in (1, 2, 4, 5, 6)) / 5
STATISTICS = 2 * 4 * 8


@tensorflow_only
def test_bytes_and_number_of_the_reductions_of_each_method(tmp_path):
    path = tmp_path / "counted.json"
    words = ["tests.distribution.communication_run", path]
    finish([start(words, tmp_path, "run")], tmp_path)
    assert json.loads(path.read_text()) == {
        "SGD": [GRADIENT, 1],
        "SAM": [GRADIENT + STATISTICS, 2],
        "SAM, global": [2 * GRADIENT + STATISTICS, 3],
        "ESAM depth": [GRADIENT + STATISTICS, 2],
        "ESAM depth, global": [
            pytest.approx(GRADIENT + SUBSET + STATISTICS),
            3,
        ],
        # It reduces the gradient that it keeps too.
        "one-step": [2 * GRADIENT + STATISTICS, 3],
    }
