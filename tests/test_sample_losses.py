import keras
import numpy as np
import pytest
from keras.src.trainers.compile_utils import CompileLoss

from keras_esam import sample_losses

REDUCTIONS = ["sum_over_batch_size", "sum", "mean_with_sample_weight"]


def random(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype("float32")


def tensor(array, mask=None):
    result = keras.ops.convert_to_tensor(array)
    if mask is not None:
        result._keras_mask = keras.ops.convert_to_tensor(mask)
    return result


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_mean_of_the_sample_losses_is_the_reduced_loss(
    reduction, weighted, masked
):
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    mask = random(6, 4, seed=3) > 0.5 if masked else None
    y, y_pred = tensor(random(6, 4, 3)), tensor(random(6, 4, 3, seed=1), mask)
    weight = tensor(random(6, 4, seed=2)) if weighted else None
    result = sample_losses.sample_losses(loss, y, y_pred, weight)
    assert result.shape == (6,)
    np.testing.assert_allclose(
        np.mean(np.asarray(result)), loss(y, y_pred, weight), rtol=1e-6
    )


@pytest.mark.parametrize("rows", [(6,), (6, 1), (6, 6), (6, 6, 1)])
def test_weights_may_have_one_more_axis(rows):
    """As in Keras: the mean with masked and weighted values."""
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=0, reduction="mean_with_sample_weight"
    )
    axes = (6,) if np.prod(rows) == 6 else (6, 6)
    y = np.random.default_rng(0).integers(0, 3, axes)
    y_pred, weight = random(*axes, 3, seed=1), random(*rows, seed=2)
    arguments = (tensor(y), tensor(y_pred), tensor(weight))
    result = sample_losses.sample_losses(loss, *arguments)
    kept = np.where(y == 0, 0.0, weight.reshape(axes))
    logits = y_pred - np.log(np.exp(y_pred).sum(-1, keepdims=True))
    values = -np.take_along_axis(logits, y[..., None], -1)[..., 0] * kept
    expected = values.reshape(6, -1).sum(-1) * 6 / kept.sum()
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    np.testing.assert_allclose(np.mean(expected), loss(*arguments), rtol=1e-5)


def test_sample_losses_computed_by_hand():
    loss = keras.losses.MeanSquaredError()
    y, y_pred = np.zeros((3, 2)), np.array([[1, 1], [1, 3], [2, 0]])
    weight = np.array([1.0, 2.0, 0.5])
    result = sample_losses.sample_losses(
        loss, tensor(y), tensor(y_pred), tensor(weight)
    )
    np.testing.assert_allclose(result, [1, 10, 1], rtol=1e-6)
    assert loss.reduction == "sum_over_batch_size"


def test_masked_parts_do_not_count():
    loss = keras.losses.MeanSquaredError()
    mask = np.array([[True, False], [True, True]])
    y = tensor(np.zeros((2, 2, 1), "float32"))
    y_pred = tensor(np.array([[[1.0], [9.0]], [[2.0], [3.0]]]), mask)
    result = sample_losses.sample_losses(loss, y, y_pred)
    # Three valid entries, and a batch of two.
    np.testing.assert_allclose(result, [1 * 2 / 3, 13 * 2 / 3], rtol=1e-6)


def test_all_masked_gives_zero_and_not_nan():
    loss = keras.losses.MeanSquaredError()
    y_pred = tensor(random(2, 2, 1), np.zeros((2, 2), bool))
    result = sample_losses.sample_losses(loss, tensor(random(2, 2, 1)), y_pred)
    np.testing.assert_array_equal(result, [0, 0])


def test_loss_that_reduces_by_itself_has_no_sample_losses():
    def scalar(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred))

    compiled = CompileLoss(scalar)
    y, y_pred = tensor(random(4, 2)), tensor(random(4, 2, seed=1))
    compiled(y, y_pred)
    assert sample_losses.compiled_sample_losses(compiled, y, y_pred) is None


def test_flattened_losses_are_not_those_of_the_samples():
    class Flattened(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.reshape((y_true - y_pred) ** 2, (-1,))

    y, y_pred = tensor(random(4, 2)), tensor(random(4, 2, seed=1))
    assert sample_losses.sample_losses(Flattened(), y, y_pred) is None


def test_loss_that_reduces_in_a_call_method_of_its_own():
    class Own(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return keras.ops.mean((y_true - y_pred) ** 2)

    y, y_pred = tensor(random(4, 2)), tensor(random(4, 2, seed=1))
    assert sample_losses.sample_losses(Own(), y, y_pred) is None


def test_loss_that_is_not_hashable():
    class Equal(keras.losses.MeanSquaredError):
        def __eq__(self, other):
            return type(self) is type(other)

    y, y_pred = tensor(random(4, 2)), tensor(random(4, 2, seed=1))
    values = sample_losses.sample_losses(Equal(), y, y_pred)
    expected = keras.ops.mean((y - y_pred) ** 2, axis=1)
    values, expected = map(keras.ops.convert_to_numpy, (values, expected))
    np.testing.assert_allclose(values, expected, rtol=1e-6)


class NeedsItsSizes(keras.losses.Loss):
    """Mean squares over one axis, for batches of 6 samples only."""

    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def call(self, y_true, y_pred):
        difference = keras.ops.reshape(y_pred - y_true, (6, 4))
        return keras.ops.mean(difference**2, axis=self.axis)


def test_loss_that_needs_its_sizes():
    y, y_pred = random(6, 4), random(6, 4, seed=1)
    result, of_classes = (
        sample_losses.sample_losses(
            NeedsItsSizes(axis), tensor(y), tensor(y_pred)
        )
        for axis in (1, 0)
    )
    np.testing.assert_allclose(
        result, np.mean((y_pred - y) ** 2, axis=1), rtol=1e-6
    )
    assert of_classes is None


@pytest.mark.parametrize("structure", ["list", "dict", "nested"])
def test_outputs_and_loss_weights_are_summed(structure):
    make = {
        "list": lambda a, b: [a, b],
        "dict": lambda a, b: {"a": a, "b": b},
        "nested": lambda a, b: {"a": [a], "b": {"c": b}},
    }[structure]
    y = make(tensor(random(5, 2)), tensor(random(5, 3, seed=1)))
    y_pred = make(tensor(random(5, 2, seed=2)), tensor(random(5, 3, seed=3)))
    weight = tensor(random(5, seed=4))
    compiled = CompileLoss(make("mse", "mae"), loss_weights=make(1.0, 0.25))
    total = compiled(y, y_pred, weight)
    trackers = [float(m.result()) for m in compiled.metrics]
    result = sample_losses.compiled_sample_losses(compiled, y, y_pred, weight)
    np.testing.assert_allclose(np.mean(np.asarray(result)), total, rtol=1e-6)
    flat_y, flat_pred = (
        [keras.ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(tree)]
        for tree in (y, y_pred)
    )
    mse = np.mean(np.square(flat_y[0] - flat_pred[0]), axis=-1)
    mae = np.mean(np.abs(flat_y[1] - flat_pred[1]), axis=-1)
    expected = np.asarray(weight) * (mse + 0.25 * mae)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    # The clean pass alone updates the trackers of the outputs' losses.
    assert [float(m.result()) for m in compiled.metrics] == trackers


def test_output_without_a_loss_is_left_out():
    compiled = CompileLoss(["mse", None])
    y = [tensor(random(5, 2)), tensor(random(5, 3))]
    y_pred = [tensor(random(5, 2, seed=2)), tensor(random(5, 3, seed=3))]
    total = compiled(y, y_pred)
    result = sample_losses.compiled_sample_losses(compiled, y, y_pred)
    np.testing.assert_allclose(np.mean(np.asarray(result)), total, rtol=1e-6)


def joint(y_true, y_pred):
    """Absolute errors of one output plus twice those of the other."""
    errors = [
        keras.losses.mean_absolute_error(y_true[key], y_pred[key])
        for key in ("a", "b")
    ]
    return errors[0] + 2 * errors[1]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_loss_of_several_outputs(reduction):
    y = {"a": np.zeros((3, 2)), "b": np.zeros((3, 1))}
    y_pred = {
        "a": np.array([[1, 1], [1, 3], [2, 0]]),
        "b": np.array([[1.0], [0.0], [4.0]]),
    }
    weight = np.array([1.0, 2.0, 0.5])
    arguments = keras.tree.map_structure(
        lambda array: tensor(array.astype("float32")), (y, y_pred, weight)
    )
    compiled = CompileLoss([Joint(reduction=reduction)])
    total = compiled(*arguments)
    result = sample_losses.compiled_sample_losses(compiled, *arguments)
    losses = np.array([1 + 2, 2 + 0, 1 + 8]) * weight
    divisor = {"sum": 1, "mean_with_sample_weight": 3.5}.get(reduction, 3)
    np.testing.assert_allclose(result, losses * 3 / divisor, rtol=1e-6)
    np.testing.assert_allclose(np.mean(np.asarray(result)), total, rtol=1e-6)


class Joint(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return joint(y_true, y_pred)


def test_one_loss_of_several_outputs_that_reduces_by_itself():
    compiled = CompileLoss([lambda *pair: keras.ops.mean(joint(*pair))])
    y, y_pred = (
        {key: tensor(random(4, 1, seed=seed)) for key in ("a", "b")}
        for seed in (1, 2)
    )
    compiled(y, y_pred)
    assert sample_losses.compiled_sample_losses(compiled, y, y_pred) is None


@pytest.mark.parametrize(
    "value", [0.5, 2, np.float32(0.5), [0.5, 0.25]], ids=str
)
def test_loss_that_returns_no_tensor_has_no_sample_losses(value):
    compiled = CompileLoss(lambda y_true, y_pred: value)
    y, y_pred = tensor(random(4, 1)), tensor(random(4, 1, seed=1))
    compiled(y, y_pred)
    assert sample_losses.compiled_sample_losses(compiled, y, y_pred) is None


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_classes_do_not_count(reduction, weighted):
    loss = keras.losses.SparseCategoricalCrossentropy(
        ignore_class=2, reduction=reduction
    )
    y = np.array([[0, 2], [1, 1], [2, 2]])
    y_pred = random(3, 2, 3)
    y_pred /= y_pred.sum(axis=-1, keepdims=True)
    weight = random(3, 2, seed=2) if weighted else np.ones((3, 2), "float32")
    given = tensor(weight.copy()) if weighted else None
    result = sample_losses.sample_losses(loss, tensor(y), tensor(y_pred), given)
    chosen = np.take_along_axis(y_pred, y[..., None], axis=-1)[..., 0]
    values = np.where(y == 2, 0, -np.log(chosen)) * weight
    divisor = {"sum": 1, "mean_with_sample_weight": (weight * (y != 2)).sum()}
    expected = values.sum(axis=1) * 3 / divisor.get(reduction, 3)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
