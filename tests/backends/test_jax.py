"""What is particular to JAX: state outside of the variables, donated buffers.

The other tests run on JAX as well, with `KERAS_BACKEND=jax`.
"""

import keras
import numpy as np
import pytest

from benchmarks.networks import resnet18
from keras_esam.callbacks import AtomicBackup
from keras_esam.callbacks import ThroughputLogger
from tests.methods import METHODS
from tests.networks import all_values
from tests.networks import assert_different
from tests.networks import assert_identical
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

if keras.backend.backend() != "jax":
    pytest.skip("for the JAX backend", allow_module_level=True)

X, Y = dense_data(64)


def floating_point_operations(**kwargs):
    """Of all compiled steps by the compiler's count, mean over the subsets."""
    import jax

    keras.utils.set_random_seed(1)
    model = esam(resnet18(8, 2), **kwargs)
    compile_to_graph(model)
    x = np.zeros((16, 32, 32, 3), "float32")
    y = np.zeros(16, "int32")
    model.train_on_batch(x, y)
    operations = []
    for index in range(model.num_subsets):
        model._progress.num_executions = index
        model._progress.write()
        state = model._get_jax_state(
            trainable_variables=True,
            non_trainable_variables=True,
            optimizer_variables=True,
            metrics_variables=True,
        )
        data = jax.tree.map(jax.numpy.asarray, (x, y))
        step = model.train_function._make_function(
            model.upcoming_step, state, data
        )
        compiled = step.lower(state, data).compile()
        operations.append(compiled.cost_analysis()["flops"])
    return np.mean(operations)


@pytest.fixture
def all_optimizations():
    """That is, those which `conftest` turns off."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.usefixtures("all_optimizations")
def test_depth_subsets_save_operations_of_the_compiled_step():
    sam = floating_point_operations(beta=1, gamma=1)
    assert floating_point_operations(beta=0.6, gamma=0.5) <= 0.73 * sam
    assert floating_point_operations(rho=0) <= 0.51 * sam


def test_an_error_in_the_first_step_leaves_the_weights():
    model = compile_to_graph(esam(dense_network()))
    fit(model, X, Y)
    before = model.get_weights()
    model.compile("sgd", lambda y, y_pred: keras.ops.mean(y_pred))
    with pytest.raises(ValueError, match="loss of each sample"):
        fit(model, X, Y)
    assert_identical(model.get_weights(), before)
    model.gamma = 1
    fit(model, X, Y)


@pytest.fixture
def compilations():
    """List that has one entry for each compilation since its last `clear()`."""
    from jax import monitoring

    durations = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration)

    monitoring.register_event_duration_secs_listener(listen)
    yield durations
    monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("method", ["sam", "esam_depth"])
def test_each_step_is_compiled_once(method, compilations):
    model = compiled_model(method)
    # Every step once: later ones get their state from steps, too.
    fit(model, X[:32], Y[:32])
    assert compilations
    compilations.clear()
    for _ in range(2):
        fit(model, X, Y)
        model.evaluate(X, Y, verbose=0)
    assert len(compilations) == 1  # that of `evaluate`


class SetAttributes(keras.callbacks.Callback):
    """Sets attributes of the model after the second batch of each epoch."""

    def __init__(self, **attributes):
        super().__init__()
        self.attributes = attributes

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            for name, value in self.attributes.items():
                setattr(self._model, name, value)


@pytest.mark.parametrize(
    "attributes",
    [{"seed": 5}, {"rank_by": "loss", "ascent": "momentum"}, {"rho": 0.0}],
)
def test_attributes_can_be_set_within_an_epoch(attributes):
    model = compile_to_graph(esam(dense_network(), seed=1))
    model._preferred_pool_size = 2
    before = model.get_weights()
    fit(model, X, Y, epochs=2, callbacks=[SetAttributes(**attributes)])
    assert_different(model.get_weights(), before)
    assert int(model.optimizer.iterations.value) == 8


def compiled_model(method):
    model = esam(dense_network(), seed=3, **METHODS[method])
    model._preferred_pool_size = 2
    return compile_to_graph(model, keras.optimizers.Adam(0.01))


@pytest.mark.parametrize(
    "method",
    [
        *("esam_depth", "esam_weight_random"),
        pytest.param("one_step_loss", marks=pytest.mark.slow),
    ],
)
def test_compiled_run_goes_on_from_its_backup(method, tmp_path):
    whole, cut, resumed = (compiled_model(method) for _ in range(3))
    before = whole.get_weights()
    fit(whole, X, Y, epochs=2)
    fit(cut, X, Y, epochs=1, callbacks=[AtomicBackup(tmp_path)])
    fit(resumed, X, Y, epochs=2, callbacks=[AtomicBackup(tmp_path)])
    assert_identical(all_values(resumed), all_values(whole))
    assert_different(resumed.get_weights(), before)


def test_throughput_logger_writes_no_state_back_within_an_epoch(monkeypatch):
    model = compile_to_graph(esam(dense_network(), beta=1))
    fit(model, X, Y)
    syncs = []
    sync = type(model).jax_state_sync
    monkeypatch.setattr(
        type(model),
        "jax_state_sync",
        lambda self: syncs.append(self._jax_state_synced) or sync(self),
    )
    epochs = 3
    history = fit(
        model, X, Y, epochs=epochs, callbacks=[ThroughputLogger()]
    ).history
    # At the end of an epoch, and once for the samples of those that count.
    assert syncs.count(False) == 2 * epochs - 1
    assert np.isfinite(history["images_per_second"][1:]).all()
