"""m-sharpness: a separate perturbation for each micro-batch of a step.

A micro-batch goes through the step as if it were the batch of a replica. It has
its own perturbation, selection of samples, random numbers and
BatchNormalization statistics. Its losses have the divisors of the whole batch,
see `loss_factors`. The first micro-batch has the remaining samples, the others
have `size` samples. The results are a tuple of

    means  the loss, the gradients, new values of floating-point state, what is
           added to metrics: averaged over the micro-batches, weighted by
           their numbers of samples
    rows   predictions, increases of the losses, new scales and histories of
           float8 training: concatenated
    fixed  new values of other state, such as seeds: taken from the first
           micro-batch, the same as in a step without micro-batches

each of them a list of tensors or `None`.

Reference:

- [Foret et al., 2021](https://arxiv.org/abs/2010.01412), section 4.1
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_esam import loss_factors
from keras_esam import rows
from keras_esam import sample_losses
from keras_esam.backends import backend
from keras_esam.backends import forward_pass

# Odd, so that no two micro-batches share a seed, and 2**32 divided by the
# golden ratio: its multiples stay apart from each other, and from small seeds.
SEED_STRIDE = 0x9E3779B1


def each(compute, model, plan, batch, weights, state) -> tuple:
    """Calls `compute`, `step.sharpness_aware_gradients`, for each micro-batch
    of a batch. Arguments and results are as for `compute`."""
    findings = model._findings
    if not findings.needs_divisors:
        try:
            return _each(compute, model, plan, batch, weights, state)
        except loss_factors.DivisorsNeeded:
            findings.needs_divisors = True
    factors = _factors(model, plan, batch, weights, state)
    return _each(compute, model, plan, batch, weights, state, factors)


def _each(compute, model, plan, batch, weights, state, factors=None):
    num_samples = backend.batch_size(batch)
    # The same for all of them, and no tensors of the batch.
    assigned, y_pred = [], None

    def run(start, count):
        nonlocal y_pred
        indices = start + ops.arange(count)
        part, own_factors = rows.take((batch, factors), indices)
        ratio, losses = _ratio(num_samples, count), model
        if loss_factors.applies(model):
            losses = loss_factors.ScaledLosses(model, ratio, own_factors)
        own_state, place = _begin(state, start, losses)
        with rows.explained(), backend.recorded_if(start == 0):
            clean, gradients, increase = compute(
                model, plan, part, weights, own_state, place
            )
        y_pred = clean.y_pred
        _check_rows(y_pred)
        assigned[:] = [variable for variable, _ in clean.updates]
        values = _added_up(model, clean, ratio, num_samples)
        means = [clean.loss, *backend.dense(gradients)]
        means += [v if _is_float(v) else None for v in values]
        fixed = [None if _is_float(v) else v for v in values]
        outputs = keras.tree.flatten(y_pred)
        masks = [sample_losses.keras_mask(output) for output in outputs]
        new_values = [gradients[index] for index in plan.overwritten]
        new_values = [v if v is None else v[None] for v in new_values]
        seen = None if clean.rows is None else start + clean.rows
        return means, [increase, seen, *new_values, *outputs, *masks], fixed

    means, (increase, seen, *parts), fixed = backend.each_micro_batch(
        run, num_samples, plan.method.micro_batch_size
    )
    loss, gradients = means[0], means[1 : 1 + len(weights)]
    for index in plan.overwritten:
        new_values = parts.pop(0)
        if new_values is not None:
            # As Keras does when it accumulates gradients.
            gradients[index] = ops.max(new_values, axis=0)
    whole = forward_pass.ForwardPass(
        _whole_predictions(y_pred, parts),
        loss,
        sample_losses=None,
        weights=weights,
        updates=_updates(assigned, means[1 + len(weights) :], fixed),
        rows=seen,
    )
    return whole, gradients, increase


def _check_rows(y_pred):
    shapes = [tuple(getattr(v, "shape", ())) for v in _outputs(y_pred)]
    if () in shapes:
        raise ValueError(
            "`micro_batch_size` needs outputs with the samples as their rows. "
            f"Received: outputs of shapes {shapes}"
        )


def _outputs(y_pred):
    return [leaf for leaf in keras.tree.flatten(y_pred) if leaf is not None]


def _added_up(model, clean, ratio, num_samples):
    """New values that a micro-batch assigned. Additions to a sum are scaled,
    so that their mean over the micro-batches is the total."""
    once = _counted_once(model, clean.y_pred)
    weight = num_samples if isinstance(num_samples, int) else 1.0
    values = []
    for variable, value in clean.updates:
        if _is_sum(variable):
            increase = ops.cast(value - variable.value, "float32")
            factor = weight if id(variable) in once else ratio
            value = increase * ops.cast(factor, "float32")
        values.append(value)
    return values


def _updates(variables, means, fixed):
    """Pairs `(variable, value)` of the whole batch."""
    updates = []
    for variable, mean, value in zip(variables, means, fixed, strict=True):
        value = value if mean is None else mean
        if _is_sum(variable):
            increase = value if _is_float(variable) else ops.round(value)
            value = variable.value + ops.cast(increase, variable.dtype)
        updates.append((variable, value))
    return updates


def _whole_predictions(y_pred, parts):
    """Predictions of all micro-batches, with their masks.

    Args:
        y_pred: Nested structure, the predictions of one micro-batch.
        parts: List of the leaves of the batch's predictions, and then of their
            masks, tensors or `None`.
    """
    outputs, masks = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    for output, mask in zip(outputs, masks, strict=True):
        keras.src.backend.common.masking.set_keras_mask(output, mask)
    return keras.tree.pack_sequence_as(y_pred, outputs)


def _factors(model, plan, batch, weights, state):
    """Calls `loss_factors.of_samples` with the step's random numbers."""

    def predictions(part, start):
        own_state, place = _begin(state, start, model)
        with backend.recorded_if(False):
            result = backend.forward(
                model,
                part,
                weights,
                own_state,
                total=False,
                per_sample=False,
                part=place,
            )
        return result.y_pred

    size = plan.method.micro_batch_size
    return loss_factors.of_samples(model, batch, size, predictions)


@dataclasses.dataclass
class Part:
    """The place of a micro-batch in its batch.

    Args:
        start: Integer or scalar tensor, its first sample. At 0 the random
            numbers are the same as in a step without micro-batches.
        losses: Object that computes the losses: the `ESAMModel`, or
            `loss_factors.ScaledLosses`.
    """

    start: Any
    losses: Any

    def own_seed(self, variable):
        """Value of a seed that no layer tracks, such as Keras' global one."""
        if not _is_seed(variable):
            return None
        # A scope without values.
        with keras.StatelessScope():
            return _own_seed(backend.value(variable), self.start)


def _begin(state, start, losses):
    """State that gives a micro-batch its own random numbers, and its `Part`."""
    backend.begin_micro_batch(start)
    own_state = [
        (v, _own_seed(value, start) if _is_seed(v) else value)
        for v, value in state
    ]
    return own_state, Part(start, losses)


def _is_seed(variable):
    name, shape = variable.path.split("/")[-1], tuple(variable.shape)
    return name == "seed_generator_state" and shape == (2,)


def _own_seed(value, start):
    """State of a `SeedGenerator` with another seed, its first integer.

    The second integer counts the draws. PyTorch's generators get their sum.
    """
    dtype = keras.backend.standardize_dtype(value.dtype)
    if isinstance(start, int):
        offset = np.array([start * SEED_STRIDE % 2**32, 0], "uint32")
        return ops.add(value, ops.convert_to_tensor(offset.astype(dtype)))
    return value + (ops.cast(start, dtype) * [SEED_STRIDE, 0]) % 2**32


def _is_sum(variable):
    """Whether a variable is summed over the replicas, as in metrics."""
    return variable.aggregation == "sum"


def _counted_once(model, y_pred):
    """Ids of the variables in which a micro-batch counts once.

    Keras counts its samples in the mean losses of the outputs, unless their
    number is not known when the step is traced. The whole batch's may be known.
    """
    outputs = _outputs(y_pred)
    if not outputs or outputs[0].shape[0] is not None:
        return ()
    compile_loss = model._compile_loss
    return {id(v) for v in compile_loss.variables} if compile_loss else ()


def _ratio(num_samples, count):
    """Samples of the batch divided by `count`, 1 if both are 0."""
    if isinstance(count, int):
        return num_samples / count if count else 1.0
    return ops.where(count == 0, 1.0, num_samples / count)


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
