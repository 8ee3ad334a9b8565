"""What the processes of a training on JAX agree on."""

import jax
from jax.experimental import multihost_utils


def is_chief():
    """Whether this is the process that writes files, or the only one."""
    return jax.process_index() == 0


def wait_for_all():
    """Returns when every process has come to this call."""
    multihost_utils.sync_global_devices("keras_esam")
