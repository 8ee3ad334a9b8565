"""m-sharpness; the weights are compared in `test_reference_step`, and the
random numbers of micro-batches in `test_micro_batch_seeds`."""

import keras
import numpy as np
import pytest

from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

SAM = {"beta": 1, "gamma": 1, "seed": 3}


def make(network=None, **kwargs):
    network = network or dense_network()
    return esam(network, **{"rho": 0.2, **SAM, **kwargs})


def test_micro_batch_of_the_whole_batch_is_none():
    x, y = dense_data(24)  # The last batch has 8 samples.
    values = []
    for micro_batch_size in (None, 16):
        model = make(micro_batch_size=micro_batch_size, gamma=0.5, beta=0.6)
        compile_model(model)
        fit(model, x, y)
        values.append(all_values(model))
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_clean_logs_are_those_of_the_whole_batch():
    x, y = dense_data(38)
    logs = []
    for size in (None, 3):
        network = dense_network(batch_norm=False, dropout=False)
        model = make(network, micro_batch_size=size)
        compile_to_graph(model, keras.optimizers.SGD(0.0))
        logs.append(fit(model, x, y).history)
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(*(own[key] for own in logs), rtol=1e-5)
    # The gradient of few samples raises their loss more than that of many.
    assert logs[1]["sharpness"][0] > 1.2 * logs[0]["sharpness"][0]


def test_statistics_are_the_mean_of_those_of_the_micro_batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 3)).astype("float32")
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.BatchNormalization(momentum=0.75),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(make(network, micro_batch_size=4))
    fit(model, x, np.arange(10) % 3, batch_size=10)
    parts = [x[:2], x[2:6], x[6:]]
    shares = [0.2, 0.4, 0.4]
    norm = network.layers[0]
    for value, initial, statistic in (
        (norm.moving_mean, 0.0, np.mean),
        (norm.moving_variance, 1.0, np.var),
    ):
        expected = sum(
            share * (0.75 * initial + 0.25 * statistic(part, axis=0))
            for share, part in zip(shares, parts, strict=True)
        )
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-6)


def sequences():
    """Inputs with a mask, shape `(12, 5)`, and labels."""
    rng = np.random.default_rng(1)
    x = rng.integers(1, 9, (12, 5))
    for row, length in enumerate(rng.integers(1, 6, 12)):
        x[row, length:] = 0
    return x, rng.integers(0, 3, (12, 5))


def masked_network():
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def test_masks_reach_the_metrics():
    x, y = sequences()
    logs = []
    for kwargs in ({"rho": 0.0}, {"micro_batch_size": 5}):
        model = make(masked_network(), **kwargs)
        compile_to_graph(
            model,
            keras.optimizers.SGD(0.0),
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
        )
        logs.append(fit(model, x, y, batch_size=12).history)
    for key in logs[0]:
        np.testing.assert_allclose(*(own[key] for own in logs), rtol=1e-5)


class Counting(keras.layers.Layer):
    """Counts the samples that it has seen, as a metric does."""

    def __init__(self):
        super().__init__()
        self.seen = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="sum",
        )

    def call(self, inputs, training=False):
        if training:
            size = keras.ops.cast(keras.ops.shape(inputs)[0], "int32")
            self.seen.assign(self.seen + size)
        return inputs


def test_what_is_summed_is_the_sum_over_the_micro_batches():
    x, y = dense_data(36)
    counting = Counting()
    network = keras.Sequential(
        [
            keras.Input((8,)),
            counting,
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(make(network, micro_batch_size=3))
    fit(model, x, y, epochs=2)
    assert int(counting.seen.numpy()) == 72


def test_masks_are_drawn_for_each_micro_batch():
    x, y = dense_data(16)
    values = []
    for _ in range(2):
        model = make(beta=0.5, granularity="weight", micro_batch_size=4)
        compile_model(model)
        fit(model, x, y)
        values.append(all_values(model))
    assert_identical(*values)
    assert model.seed_generator.state.numpy()[1] == 4 * len(
        model.trainable_variables
    )


# The last batch has 6 samples. Micro-batches weigh differently.
NUM_SAMPLES = 22
WEIGHTS = np.where(np.arange(NUM_SAMPLES) % 16 < 4, 5.0, 0.2)
REDUCTIONS = ["sum_over_batch_size", "sum", "mean_with_sample_weight"]


def crossentropy(reduction, **kwargs):
    return keras.losses.SparseCategoricalCrossentropy(
        reduction=reduction, **kwargs
    )


def samples_case(reduction):
    network = dense_network(batch_norm=False, dropout=False)
    return network, crossentropy(reduction), *dense_data(NUM_SAMPLES), WEIGHTS


def masked_case(reduction):
    rng = np.random.default_rng(1)
    x = rng.integers(1, 9, (NUM_SAMPLES, 5))
    x[np.arange(5) > np.arange(NUM_SAMPLES)[:, None] % 16 // 3] = 0
    y = rng.integers(0, 3, (NUM_SAMPLES, 5))
    weights = np.repeat(WEIGHTS[:, None], 5, axis=1)
    return masked_network(), crossentropy(reduction), x, y, weights


def ignored_class_case(reduction):
    network, _, x, y, weights = samples_case(reduction)
    y[:6] = 2
    return network, crossentropy(reduction, ignore_class=2), x, y, weights


def two_outputs_case(reduction):
    _, loss, x, y, weights = masked_case(reduction)
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(inputs)
    pooled = keras.layers.GlobalAveragePooling1D()(embedded)
    outputs = {
        "a": keras.layers.Dense(3, activation="softmax", name="a")(embedded),
        "b": keras.layers.Dense(2, name="b")(pooled),
    }
    losses = {"a": loss, "b": keras.losses.MeanSquaredError(reduction="sum")}
    y = {"a": y, "b": np.sin(np.arange(2.0 * NUM_SAMPLES)).reshape(-1, 2)}
    weights = {"a": weights, "b": WEIGHTS}
    return keras.Model(inputs, outputs), losses, x, y, weights


def check_equals_the_whole_batch(case, reduction, weighted, run_eagerly):
    results = []
    for size in (None, 5):
        keras.utils.set_random_seed(3)
        network, loss, x, y, weights = case(reduction)
        # All micro-batches have almost the same perturbed weights.
        model = make(network, rho=1e-9, micro_batch_size=size)
        model.compile(
            keras.optimizers.SGD(0.01),
            loss,
            loss_weights={"a": 0.5, "b": 0.1} if isinstance(y, dict) else None,
            run_eagerly=run_eagerly,
        )
        arguments = {"sample_weight": weights} if weighted else {}
        history = fit(model, x, y, **arguments).history
        assert history.pop("sharpness")[0] == pytest.approx(0, abs=1e-4)
        results.append([*history.values(), *model.get_weights()])
    for whole, parts in zip(*results, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "reduction", "weighted"),
    [
        (samples_case, "sum_over_batch_size", True),
        (samples_case, "mean_with_sample_weight", True),
        (masked_case, "sum_over_batch_size", False),
        (masked_case, "mean_with_sample_weight", False),
        (ignored_class_case, "sum_over_batch_size", False),
        (two_outputs_case, "sum", True),
    ],
)
def test_loss_and_update_are_those_of_the_whole_batch(
    case, reduction, weighted
):
    check_equals_the_whole_batch(case, reduction, weighted, run_eagerly=True)


def test_compiled_step_has_the_divisors_of_the_whole_batch():
    reduction = "mean_with_sample_weight"
    check_equals_the_whole_batch(
        two_outputs_case, reduction, True, run_eagerly=False
    )


@pytest.mark.parametrize("method", [{}, {"gamma": 0.5}], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_update_at_the_perturbed_weights_computed_by_hand(reduction, method):
    x, _ = dense_data(10)
    y, weights = x[:, :1] ** 2 + 1, WEIGHTS[:10, None]
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model = make(network, micro_batch_size=4, rank_by="loss", **method)
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    model.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=True)
    kernel, bias = (w.astype("float64") for w in model.get_weights())
    fit(model, x, y, sample_weight=weights, batch_size=10)
    update = np.zeros(9)
    x = np.concatenate([x, np.ones((10, 1))], axis=1)
    theta = np.concatenate([kernel, bias[None]])
    for part in (slice(0, 2), slice(2, 6), slice(6, 10)):
        error = x[part] @ theta - y[part]
        slope = (weights[part] * error * x[part]).sum(axis=0)
        perturbed = theta + 0.2 * (slope / np.linalg.norm(slope))[:, None]
        # Half of the samples, those with the largest losses.
        losses = (weights[part] * error**2)[:, 0]
        kept = losses >= np.sort(losses)[len(losses) // 2]
        if "gamma" not in method:
            kept[:] = True
        w = weights[part][kept]
        residual = x[part][kept] @ perturbed - y[part][kept]
        gradient = (2 * w * residual * x[part][kept]).sum(axis=0)
        # The divisor of the kept samples, times that of the micro-batch by
        # that of the whole batch.
        update += (
            gradient
            * {
                "sum": 1,
                "sum_over_batch_size": len(kept) / kept.sum() / 10,
                "mean_with_sample_weight": weights[part].sum()
                / w.sum()
                / weights.sum(),
            }[reduction]
        )
    result = np.concatenate(
        [model.get_weights()[0][:, 0], model.get_weights()[1]]
    )
    np.testing.assert_allclose(
        result, theta[:, 0] - 0.05 * update, rtol=1e-5, atol=1e-6
    )


class MeanOfSquares(keras.losses.Loss):
    """A loss that reduces over the batch by itself."""

    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2)


def test_loss_that_reduces_by_itself_is_a_mean():
    x, _ = dense_data(16)
    logs = []
    for size in (None, 4):
        keras.utils.set_random_seed(3)
        network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        model = make(network, micro_batch_size=size)
        model.compile("sgd", MeanOfSquares(reduction="sum"))
        logs.append(fit(model, x, x[:, :1]).history)
    np.testing.assert_allclose(*(own["loss"] for own in logs), rtol=1e-5)


def test_loss_that_is_not_reduced_is_refused():
    x, _ = dense_data(16)
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model = make(network, micro_batch_size=4)
    model.compile("sgd", keras.losses.MeanSquaredError(reduction=None))
    with pytest.raises(ValueError, match="Received: .* reduction=None"):
        fit(model, x, x[:, :1])


def test_output_without_rows_is_refused():
    x, y = dense_data(16)
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    network = keras.Model(
        inputs, {"main": outputs, "mean": keras.ops.mean(outputs)}
    )
    model = make(network, micro_batch_size=4)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", {"main": loss})
    with pytest.raises(ValueError, match=r"samples as their rows.*, \(\)\]"):
        fit(model, x, {"main": y})


class CountingCalls(keras.layers.Layer):
    """Counts how often it is called."""

    calls = 0

    def call(self, inputs):
        CountingCalls.calls += 1
        return inputs


def test_divisors_without_masks_and_weights_take_no_pass():
    x, y = dense_data(16)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            CountingCalls(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = make(network, micro_batch_size=4)
    model.compile("sgd", crossentropy("sum"), run_eagerly=True)
    fit(model, x, y)
    CountingCalls.calls = 0
    fit(model, x, y)
    # The clean and the perturbed pass of each of four micro-batches.
    assert CountingCalls.calls == 8
