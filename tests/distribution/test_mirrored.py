"""`MirroredStrategy` on logical CPUs of another process."""

import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.distribution.mirrored_run import PARTS
from tests.distribution.mirrored_run import weights_by_hand
from tests.distribution.workers import finish
from tests.distribution.workers import start
from tests.networks import dense_network
from tests.networks import esam

pytestmark = tensorflow_only
# The other parts are slow.
CHECKED = [
    *("part-2", "micro_batches-2", "global_sds-2", "esam", "few-global_sds"),
    *("float8", "logs", "sam-overflow", "start-overflow"),
    *("sent-SAM", "sent-ESAM-global"),
]
OTHERS = [part for part in PARTS if part not in CHECKED]


def check_parts(tmp_path, *parts):
    command = ["tests.distribution.mirrored_run", *parts]
    finish([start(command, tmp_path, "mirrored")], tmp_path)


def test_two_replicas(tmp_path):
    """One process for all parts: to start one takes long."""
    check_parts(tmp_path, *CHECKED)


@pytest.mark.slow
def test_two_and_four_replicas(tmp_path):
    check_parts(tmp_path, *OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["one_step-2", "esam", "float8", "logs", "sam-overflow", "start-overflow"],
)
def test_part_alone(part, tmp_path):
    """For those who look for a fault: each is one of the parts above."""
    check_parts(tmp_path, part)


def test_network_of_another_strategy_is_refused():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = dense_network()
        esam(mirrored)
    message = "in the scope of the strategy in which its network was made"
    with pytest.raises(ValueError, match=message):
        esam(mirrored)
    plain = dense_network()
    with strategy.scope(), pytest.raises(ValueError, match=message):
        esam(plain)


def test_global_ascent_is_that_of_one_device():
    """The reference of `global_sam` is one step on the whole batch."""
    params = [np.ones((4, 5)) / 8, np.ones(5), np.ones((5, 3)), np.ones(3)]
    whole = weights_by_hand("global_sam", 1, params)
    for num_replicas in (2, 4):
        parts = weights_by_hand("global_sam", num_replicas, params)
        for value, expected in zip(parts, whole, strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
