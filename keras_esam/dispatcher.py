"""The train function of `fit`: one compiled step per plan."""

import contextlib
import functools
import inspect

from keras_esam import method
from keras_esam import momentum
from keras_esam import own_calls
from keras_esam.plan import StepPlan
from keras_esam.plan import pool_of


class StepDispatcher:
    """Runs the compiled step that is due, see `keras_esam.plan`.

    The step is chosen on the host, because XLA is slow for convolutions inside
    conditionals, and a step saves gradients only if its subset is static. A
    step is traced when it is first due.

    Each backend adds `__call__()`, which runs one execution, and
    `_make_function()`, which gets the arguments of the call too.

    Args:
        model: The `ESAMModel`.

    Attributes:
        num_compiled: Integer, number of steps compiled so far.
    """

    # The context in which a step is traced.
    tracing = contextlib.nullcontext

    def __init__(self, model):
        self._model = model
        self._functions = {}
        self._trainable_parts = None
        self._is_prepared = False
        self.num_compiled = 0

    def _begin(self, progress=None) -> StepPlan:
        """Plan of the step that is due. `progress` is the value of the
        progress variable, where `fit` holds the values of all variables."""
        model = self._model
        self.prepare()
        model._progress.read(progress)
        if self._runs_eagerly:
            self.forget_if_layers_changed()
        return model._plan_step()

    def _count(self, num_steps):
        """Counts an execution of some steps."""
        progress = self._model._progress
        progress.last_begin = progress.num_steps
        progress.num_executions += 1
        progress.num_steps += num_steps

    def _run(self, plan, *args):
        """Runs the step of a plan."""
        if plan in self._functions:
            return self._functions[plan](*args)
        if self.forget_if_layers_changed():
            plan = self._model._plan_step()
        self._forget_unused(plan)
        # Kept if data of unknown length ends in the call: it is compiled then.
        self._functions[plan] = self._make_function(plan, *args)
        self.num_compiled += 1
        with self.tracing():
            return self._functions[plan](*args)

    def _logs(self, plan, logs):
        """The logs of an execution as the user sees them."""
        model = self._model
        if not model._may_log_sharpness:
            # A step that was traced after this one may have found that.
            return model._without_sharpness(dict(logs))
        model._has_sharpness = model._has_sharpness or plan.knows_increase
        return model._with_sharpness_or_nan(logs)

    @property
    def _runs_eagerly(self):
        """Whether a step looks at the layers again each time it runs."""
        return False

    def forget_if_layers_changed(self) -> bool:
        """Drops the compiled steps if layers were frozen or unfrozen, since
        they train other weights or statistics. Returns whether it did."""
        changed = self._trainable_parts not in (None, self._find_trainable())
        if changed:
            self.forget()
            self.prepare()
        return changed

    def _find_trainable(self):
        """All that can be frozen, and whether it is, for comparison."""
        model = self._model
        return (
            [id(variable) for variable in model.trainable_variables],
            [(id(layer), layer.trainable) for layer in model._flatten_layers()],
        )

    def _forget_unused(self, plan):
        """Drops the steps of a past stage or pool of subsets. Base
        optimizer steps stay, since they may come again."""
        if plan.is_base_step:
            return
        model = self._model
        pool = pool_of(
            plan.method, plan.beta, model._progress.seed, model._variables
        )
        subsets = {(), *pool.subsets}
        self._functions = {
            other: function
            for other, function in self._functions.items()
            if other.is_base_step
            or other.subset in subsets
            and (other.method, other.beta, other.gamma)
            == (plan.method, plan.beta, plan.gamma)
        }

    def run_by_hand(self, data):
        """Runs and counts the step that is due, for a custom training loop."""
        plan = self._begin()
        with own_calls.own_calls():
            logs = self._logs(plan, self._model._train_step(data, plan))
        self._count(num_steps=1)
        self._model._progress.write()
        return logs

    def _step(self, plan):
        """The training step of a plan, as a function of its arguments."""
        model = self._model
        train_step = model.train_step
        # A subclass may have one without the argument. It then calls the step
        # that is due, which is this one whenever it is traced.
        if "plan" in inspect.signature(train_step).parameters:
            train_step = functools.partial(train_step, plan=plan)

        def step(*args):
            with own_calls.own_calls() as calls:
                result = train_step(*args)
                if not calls.num_steps:
                    model._warn_of_foreign_call()
            return result

        return step

    def forget(self):
        """Drops the compiled steps, for instance when the method changes."""
        self._functions.clear()
        self._is_prepared = False

    def prepare(self):
        """Prepares what needs all variables, once they exist."""
        if self._is_prepared:
            return
        model = self._model
        check_trainable(model)
        model._track_training_state()
        self._trainable_parts = self._find_trainable()
        model._findings.variables = model._find_variables()
        self._is_prepared = True


def check_trainable(model):
    """Checks that network, optimizer and metrics of an `ESAMModel` can train.

    Raises:
        ValueError: If there is nothing to train or no optimizer; if the
            optimizer lacks the momentum that the method needs; if layers with a
            state for each sample would get smaller batches; if a metric has the
            name of our own.
    """
    if not model.trainable_variables and not model._method.is_base_optimizer:
        raise ValueError(
            "`model` must have trainable weights, or train with `rho=0`. "
            f"Received: model={model.model}, whose weights are all "
            "frozen or which has none."
        )
    if model.optimizer is None:
        raise ValueError(
            "`compile()` must be given an optimizer. Received: optimizer=None"
        )
    model._method.check_together()
    is_choice = model.perturbable is not None
    is_choice = is_choice and not model._method.is_base_optimizer
    if is_choice and not model._find_variables().order:
        raise ValueError(
            "`perturbable` must choose some of the trainable weights. "
            f"Received: perturbable={model.perturbable!r}, which chooses none "
            f"of {[v.path for v in model.trainable_variables]}"
        )
    if model._method.needs_momentum:
        momentum.variables(model.optimizer, model.trainable_variables)
    stateful = [
        layer.name
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False)
    ]
    if model._method.splits_batches and stateful:
        raise ValueError(
            f"A network with stateful layers, {stateful}, has a state for each "
            "sample of a batch, and a part of the samples is a smaller batch. "
            "Use `gamma=1`, `ascent_fraction=1` and `micro_batch_size=None` "
            f"with it. Received: gamma={method.shown(model.gamma)}, "
            f"ascent_fraction={model.ascent_fraction}, "
            f"micro_batch_size={model.micro_batch_size}"
        )
    names = [
        metric.name
        for entry in model.metrics
        if entry is not model.sharpness_tracker
        for metric in getattr(entry, "metrics", [entry])
    ]
    check_metric_names(model, names)


def check_metric_names(model, names):
    if model.sharpness_tracker.name in names:
        raise ValueError(
            "`metrics` must not have the name of a metric that `ESAMModel` "
            'logs itself. Received: a metric named "sharpness"'
        )
