"""One training step of ESAM, for all Keras backends.

    F1  clean forward pass        metrics, BatchNormalization statistics, seeds
    B1  its gradient              of the perturbed variables alone
        ascent                    theta + eps, as tensors
    Fs  ranking forward pass      whole batch at theta + eps
        selection                 the samples whose loss rises the most
    F2  perturbed forward pass    selected samples at theta + eps
    B2  its gradient              of all variables, applied to theta

With `ascent="momentum"` there is no F1 and no B1, and logs come from the first
pass that remains. With `ascent_fraction` F1 and B1 see a part of the batch.
With `micro_batch_size` all passes run for one micro-batch after the other.

Variables are assigned only at the end of the step. Until then theta + eps and
all other state are tensors. So nothing has to be restored, replicas can not
drift apart, and an error leaves the model as it was. All passes start from the
same state and so use the same dropout masks.

The step is specialised to its `StepPlan`, with a static subset of the
variables: gradients of fewer variables cost less.

Reference:

- [Du et al., 2022](https://arxiv.org/abs/2110.03141), algorithm 1
"""

import contextlib
import functools

import keras
from keras import ops

from keras_esam import ascent
from keras_esam import micro_batches
from keras_esam import momentum
from keras_esam import rows
from keras_esam import sample_losses
from keras_esam import selection
from keras_esam.backends import backend


def train_step(model, plan, data) -> dict:
    """One sharpness-aware training step.

    Args:
        model: The `ESAMModel`.
        plan: `StepPlan`.
        data: Batch from `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        Dict of logs, metric name to scalar tensor.
    """
    batch = keras.utils.unpack_x_y_sample_weight(data)
    if plan.takes_rows:
        batch = rows.check(batch)
    weights = [backend.value(v) for v in model.trainable_variables]
    state = [(v, backend.value(v)) for v in model._network_state]
    compute = sharpness_aware_gradients
    if plan.has_micro_batches(backend.batch_size(batch)):
        compute = functools.partial(micro_batches.each, compute)
    observed, gradients, increase = compute(model, plan, batch, weights, state)

    if not model._findings.has_checked_step:
        backend.check_gradients(model, batch, weights, state, gradients)
        backend.check_random_numbers()
        model._findings.has_checked_step = True
    # Weights that a layer assigned are updated from their new values. All else
    # waits for the optimizer, which may refuse the weights.
    trained = set(map(id, model.trainable_variables))
    assigned = [pair for pair in observed.updates if id(pair[0]) in trained]
    others = [pair for pair in observed.updates if id(pair[0]) not in trained]
    backend.commit(assigned)
    backend.apply_gradients(model, plan, gradients)
    backend.commit(others)
    return _update_metrics(model, plan, batch, observed, increase)


def sharpness_aware_gradients(
    model, plan, batch, weights, state, part=None
) -> tuple:
    """Computes the gradient at theta + eps, and runs the other passes.

    Args:
        model: The `ESAMModel`.
        plan: `StepPlan`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the trainable variables.
        state: List of pairs `(variable, tensor)` for all other variables.
        part: Optional `micro_batches.Part`.

    Returns:
        Tuple of: the `ForwardPass` for metrics and state; the gradients for the
        update, a tensor or `None` for each of the `weights`; the increase of
        each sample's loss, shape `(batch_size,)`, or `None`.
    """
    rule, ranking = plan.method.ascent_rule, plan.method.ranking
    # Whether SDS drops samples, and whether F1 and F2 see the same ones.
    selects = plan.selects(backend.batch_size(batch))
    compares = plan.knows_increase and not selects
    needs_losses = compares or (selects and ranking.needs_losses)
    clean = increase = shared = current = None
    clean_gradients, kept = {}, batch
    if selects and ranking.needs_increase:
        shared = backend.shared_prefix(model, plan)

    if rule.needs_clean_pass:  # F1, B1
        clean, clean_gradients = _clean_pass(
            model,
            plan,
            batch,
            weights,
            state,
            per_sample=needs_losses,
            part=part,
            shared=shared,
        )
        weights = clean.weights  # Layers may have assigned some.
        current = _of_subset(plan, clean_gradients)
    perturbed, norm = _perturb(model, plan, weights, current)
    observed = clean  # What logs and state come from.
    if selects:  # Fs
        observed = clean or backend.forward(
            model, batch, perturbed, state, per_sample=needs_losses
        )
        kept, increase = _select(
            model, plan, batch, observed, perturbed, state, part, shared
        )

    with _later_pass(observed, selects):  # F2, B2
        final, gradients = backend.gradients(
            model,
            kept,
            perturbed,
            state,
            sources=range(len(weights)),
            per_sample=compares,
            valid=None if clean is None else norm,
            part=part,
        )
    if plan.method.ascent_part < 1:
        observed.updates.append(
            _moved_alignment(model, plan, weights, current, gradients)
        )
    gradients = [
        clean_gradients.get(index, gradient)
        if index in plan.overwritten
        else gradient
        for index, gradient in enumerate(gradients)
    ]
    if final.sample_losses is not None:
        increase = final.sample_losses - clean.sample_losses
    elif compares:
        model._findings.has_sample_losses = False
    return observed or final, gradients, increase


def _clean_pass(model, plan, batch, weights, state, **kwargs):
    """The `ForwardPass`, and its gradients by the indices of the variables."""
    sources = (*plan.subset, *plan.overwritten)
    seen = plan.ascent_rows(backend.batch_size(batch))
    with contextlib.nullcontext() if seen is None else rows.explained():
        clean, gradients = backend.gradients(
            model, _rows_of(batch, seen), weights, state, sources, **kwargs
        )
    clean.rows = seen
    return clean, dict(zip(sources, gradients, strict=True))


def _perturb(model, plan, weights, current):
    """The weights at theta + eps, and the norm of the ascent's gradient."""
    past = None
    if plan.method.ascent_rule.needs_momentum:
        past = momentum.read(model.optimizer, model.trainable_variables)
        past = [past[index] for index in plan.subset]
    return ascent.perturb(
        weights,
        plan.method.ascent_rule.gradients(current, past),
        plan,
        model._radius(plan.method),
        model.seed_generator,
    )


def _of_subset(plan, gradients):
    """Gradients of the perturbed variables, in the scope of the ascent."""
    own = backend.dense([gradients[index] for index in plan.subset])
    is_global = plan.method.ascent_scope == "global"
    return backend.summed(own) if is_global else own


def _moved_alignment(model, plan, weights, current, gradients):
    """The alignment's variable, and its value after the step."""
    variable = model._progress.alignment
    value = ascent.moved_alignment(
        backend.value(variable),
        current,
        _of_subset(plan, gradients),
        [weights[index] for index in plan.subset],
        plan.method.adaptive,
    )
    return variable, value


@contextlib.contextmanager
def _later_pass(observed, selects):
    """Context of F2 and B2: only the first pass writes what a user sees."""
    with contextlib.ExitStack() as contexts:
        if observed is not None:
            contexts.enter_context(backend.recorded_if(False))
        if selects:
            contexts.enter_context(rows.explained())
        yield


def _select(model, plan, batch, observed, perturbed, state, part, shared):
    """The samples to keep, and the increase of each sample's loss."""
    ranking, increase = plan.method.ranking, None
    num_samples = backend.batch_size(batch)
    if ranking.needs_losses and observed.sample_losses is None:
        raise sample_losses.missing_error(model, batch[1], observed.y_pred)
    if ranking.needs_increase:
        with backend.recorded_if(False):
            ranked = backend.forward(
                model,
                batch,
                perturbed,
                state,
                total=False,
                part=part,
                shared=shared,
            )
        increase = ranked.sample_losses - observed.sample_losses
    scores = ranking.scores(
        observed.sample_losses,
        increase,
        lambda: keras.random.uniform((num_samples,), seed=model.seed_generator),
    )
    indices = selection.select(scores, plan.num_kept(num_samples))
    return _rows_of(batch, indices), increase


def _rows_of(batch, indices):
    """The samples of a batch with these indices, all for `None`."""
    if indices is None:
        return batch
    return selection.gather(batch, indices, take=backend.take)


def _update_metrics(model, plan, batch, observed, increase):
    # The loss of a part of the batch stands for the whole batch.
    model._loss_metric.update_state(
        backend.unscaled_loss(observed.loss),
        sample_weight=backend.batch_size(batch),
    )
    x, y, sample_weight = _rows_of(batch, observed.rows)
    may_log = model._may_log_sharpness and plan.knows_increase
    if may_log and increase is not None:
        # A step that the optimizer skips for an overflow does not count.
        valid = ops.isfinite(increase)
        model.sharpness_tracker.update_state(
            ops.where(valid, increase, ops.zeros_like(increase)),
            sample_weight=valid,
        )
    logs = model.compute_metrics(x, y, observed.y_pred, sample_weight)
    return model._without_sharpness(logs)
