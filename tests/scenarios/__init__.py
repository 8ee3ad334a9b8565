"""Scenarios of `fit`, `evaluate` and `predict` with the bare model beside.

A scenario is a function of a compiled model that returns whatever can be seen
from outside. With `rho=0` that and the weights must be those of the bare model
bit for bit; with `rho > 0` it has the same keys, hooks and counts, and
`sharpness` more.
"""

import keras
import numpy as np

from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

# Batches of 16, 16 and 8.
X, Y = dense_data(40)

PHASES = "train test predict epoch train_batch test_batch predict_batch"
HOOKS = [f"on_{p}_{w}" for p in PHASES.split() for w in ("begin", "end")]


class Recorder(keras.callbacks.Callback):
    """Keeps all calls of all hooks, with their arguments."""

    def __init__(self):
        super().__init__()
        self.events = []


def _recording(hook):
    def record(self, *args, logs=None):
        *args, logs = args if logs is None else (*args, logs)
        self.events.append([hook, args, dict(logs or {})])

    return record


for _hook in HOOKS:
    setattr(Recorder, _hook, _recording(_hook))


def fit_and_record(model, x=X, y=Y, callbacks=(), **kwargs):
    """Returns the history of `fit`, and all calls of a callback."""
    recorder = Recorder()
    options = {"callbacks": [*callbacks, recorder], **kwargs}
    if isinstance(x, np.ndarray):
        history = fit(model, x, y, **options)
    else:
        history = model.fit(x, y, **{"verbose": 0, **options})
    return history.history, history.epoch, recorder.events


def _without_sharpness(result):
    if isinstance(result, dict):
        return {
            key: _without_sharpness(value)
            for key, value in result.items()
            if key != "sharpness"
        }
    if isinstance(result, (list, tuple)):
        return [_without_sharpness(value) for value in result]
    return result


def _outline(result):
    """The result with shapes in the place of numbers, which must be finite."""

    def outline(leaf):
        if isinstance(leaf, (str, int)):
            return leaf
        assert np.all(np.isfinite(np.asarray(leaf)))
        return str(np.shape(leaf))

    return keras.tree.map_structure(outline, _without_sharpness(result))


def small_network():
    return dense_network(batch_norm=False)


def compare(
    scenario, make=small_network, compile_with=compile_model, **arguments
):
    """Runs a scenario with the bare model, `rho=0` and `rho > 0`.

    Returns what it returned with `rho > 0`. The arguments are of that model.
    """
    results, networks, steps = [], [], []
    for options in (None, {"rho": 0}, {"rho": 0.1, **arguments}):
        keras.utils.set_random_seed(1)
        network = model = make()
        if options is not None:
            model = esam(network, seed=1, **options)
        compile_with(model)
        results.append(scenario(model))
        networks.append(all_values(network))
        steps.append(int(model.optimizer.iterations))
    bare, plain, sharp = results
    assert_identical(*map(keras.tree.flatten, (plain, bare)))
    assert_identical(networks[1], networks[0])
    assert _outline(plain) == _outline(bare)
    assert _outline(sharp) == _outline(bare)
    assert steps[0] == steps[1] == steps[2]
    assert all(np.all(np.isfinite(value)) for value in networks[2])
    return sharp
