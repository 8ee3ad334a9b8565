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
    passes = {"state": state, "part": part}
    forward = functools.partial(backend.forward, model, **passes)
    differentiate = functools.partial(backend.gradients, model, **passes)
    # Whether SDS drops samples, and whether F1 and F2 see the same ones.
    num_samples = backend.batch_size(batch)
    selects = plan.selects(num_samples)
    compares = plan.knows_increase and not selects
    needs_losses = compares or (selects and ranking.needs_losses)
    clean = increase = shared = current = None
    clean_gradients, kept = {}, batch
    if selects and ranking.needs_increase:
        shared = backend.shared_prefix(model, plan)

    if rule.needs_clean_pass:  # F1, B1
        sources = (*plan.subset, *plan.overwritten)
        seen = plan.ascent_rows(num_samples)
        with rows.explained(seen is not None):
            clean, gradients = differentiate(
                rows.take(batch, seen),
                weights,
                sources=sources,
                per_sample=needs_losses,
                shared=shared,
            )
        clean.rows = seen
        clean_gradients = dict(zip(sources, gradients, strict=True))
        weights = clean.weights  # Layers may have assigned some.
        current = _of_subset(plan, clean_gradients)
    perturbed, norm = _perturb(model, plan, weights, current)
    observed = clean  # What logs and state come from.
    if selects:  # Fs
        observed = clean or forward(batch, perturbed, per_sample=needs_losses)
        kept, increase = _select(
            model,
            plan,
            batch,
            observed,
            functools.partial(forward, batch, perturbed, shared=shared),
        )

    # F2, B2. Only the first pass writes what a user sees.
    with backend.recorded_if(observed is None), rows.explained(selects):
        final, gradients = differentiate(
            kept,
            perturbed,
            sources=range(len(weights)),
            per_sample=compares,
            valid=None if clean is None else norm,
        )
    if plan.method.clean_fraction < 1:
        observed.updates.append(
            _updated_alignment(model, plan, weights, current, gradients)
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


def _perturb(model, plan, weights, current):
    """The weights at theta + eps, and the norm of the ascent's gradient.

    Unperturbed variables keep the same tensors as in `weights`, so compilers
    merge equal parts of passes.
    """
    past = masks = None
    values = [weights[index] for index in plan.subset]
    if plan.method.ascent_rule.needs_momentum:
        past = momentum.read(model.optimizer, model.trainable_variables)
        past = [past[index] for index in plan.subset]
    if plan.mask_probability is not None:
        masks = ascent.bernoulli_masks(
            [value.shape for value in values],
            plan.mask_probability,
            model.seed_generator,
        )
    perturbations, norm = ascent.ascent_step(
        plan.method.ascent_rule.gradients(current, past),
        values,
        model._radius(plan.method),
        plan.probabilities,
        masks=masks,
        adaptive=plan.method.adaptive,
        scale=plan.method.scale,
    )
    perturbed = list(weights)
    for index, perturbation in zip(plan.subset, perturbations, strict=True):
        if perturbation is not None:
            perturbed[index] = weights[index] + perturbation
    return perturbed, norm


def _of_subset(plan, gradients):
    """Gradients of the perturbed variables, in the scope of the ascent."""
    own = backend.dense([gradients[index] for index in plan.subset])
    is_global = plan.method.ascent_scope == "global"
    return backend.summed(own) if is_global else own


def _updated_alignment(model, plan, weights, current, gradients):
    """The alignment's variable, and its value after the step."""
    variable = model._progress.alignment
    value = ascent.updated_alignment(
        backend.value(variable),
        current,
        _of_subset(plan, gradients),
        [weights[index] for index in plan.subset],
        plan.method.adaptive,
    )
    return variable, value


def _select(model, plan, batch, observed, forward):
    """The samples to keep, and the increase of each sample's loss."""
    ranking, increase = plan.method.ranking, None
    num_samples = backend.batch_size(batch)
    if ranking.needs_losses and observed.sample_losses is None:
        raise sample_losses.missing_error(model, batch[1], observed.y_pred)
    if ranking.needs_increase:
        with backend.recorded_if(False):
            increase = forward(total=False).sample_losses
        increase = increase - observed.sample_losses
    scores = ranking.scores(
        observed.sample_losses,
        increase,
        lambda: keras.random.uniform((num_samples,), seed=model.seed_generator),
    )
    indices = selection.select(scores, plan.num_kept(num_samples))
    return rows.take(batch, indices), increase


def _update_metrics(model, plan, batch, observed, increase):
    # The loss of a part of the batch stands for the whole batch.
    model._loss_metric.update_state(
        backend.unscaled_loss(observed.loss),
        sample_weight=backend.batch_size(batch),
    )
    x, y, sample_weight = rows.take(batch, observed.rows)
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
