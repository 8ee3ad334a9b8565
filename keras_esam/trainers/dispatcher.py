"""The train function of `fit`: one compiled step per plan."""

import contextlib

from keras_esam.step_plan import StepPlan
from keras_esam.trainers import own_calls


class StepDispatcher:
    """Runs the compiled step that is due, see `keras_esam.step_plan`.

    The choice is made on the host: XLA is slow for convolutions inside of
    conditionals, and a step saves gradients only if its subset is static. A
    step is traced when it is first due.

    A dispatcher of a backend extends it with `__call__()`, which runs one
    execution, and `_make_function()`, which gets the arguments of the call too.

    Args:
        model: The `ESAMModel`.

    Attributes:
        num_compiled: Integer, number of steps that were made so far.
    """

    # In which context a step is traced.
    tracing = contextlib.nullcontext

    def __init__(self, model):
        self._model = model
        self._functions = {}
        self.num_compiled = 0
        self._trainable = None
        self._seed = model._progress.seed

    def _begin(self, progress=None) -> StepPlan:
        """Plan of the step that is due.

        Args:
            progress: Optional array, the value of the variable of the progress,
                where `fit` holds the values of all variables.
        """
        model = self._model
        model._progress.read(progress)
        if model._progress.seed != self._seed:
            # Loaded. The subsets of compiled steps were drawn with another.
            self._seed = model._progress.seed
            self._functions.clear()
        return model._plan_step()

    def _count(self, num_steps):
        """Counts an execution of some steps."""
        progress = self._model._progress
        progress.num_executions += 1
        progress.num_steps += num_steps

    def _run(self, plan, *args):
        """Runs the step of a plan."""
        if self._runs_eagerly or plan not in self._functions:
            self.forget_if_layers_changed()
        if plan in self._functions:
            return self._functions[plan](*args)
        self._forget_other_stages(plan)
        # Kept if data of unknown length ends in the call: it is compiled then.
        self._functions[plan] = self._make_function(plan, *args)
        self.num_compiled += 1
        with self.tracing():
            return self._functions[plan](*args)

    def _logs(self, plan, logs):
        """The logs of an execution as they are told to the user."""
        model = self._model
        if not model._may_log_sharpness:
            # As a step may have found that was traced after this one.
            return model._without_sharpness(dict(logs))
        if not model._has_sharpness and model._knows_rise(plan.gamma):
            model._has_sharpness = not model._needs_no_perturbation(plan)
        return model._with_sharpness_or_nan(logs)

    @property
    def _runs_eagerly(self):
        """Whether a step looks anew at the layers each time that it runs."""
        return False

    def forget_if_layers_changed(self):
        """Drops the compiled steps if layers were frozen or unfrozen.

        Steps that were compiled before and after it would train other weights,
        or update other statistics.
        """
        if self._trainable not in (None, self._find_trainable()):
            self._functions.clear()
            self._prepare()

    def _find_trainable(self):
        """All that can be frozen, and whether it is, to be compared."""
        model = self._model
        return (
            [id(variable) for variable in model.trainable_variables],
            [(id(layer), layer.trainable) for layer in model._flatten_layers()],
        )

    def _forget_other_stages(self, plan):
        """Drops the steps of a `beta` or `gamma` that will not come again."""
        self._functions = {
            other: function
            for other, function in self._functions.items()
            if (other.beta, other.gamma) == (plan.beta, plan.gamma)
        }

    def _step(self, plan):
        """The training step of a plan."""

        def step(*args):
            # Runs at each tracing, so that every trace gets its own plan.
            model = self._model
            model._traced_plan, model._has_used_plan = plan, False
            try:
                with own_calls.own_calls():
                    result = model.train_step(*args)
            finally:
                model._traced_plan = None
            if not model._has_used_plan:
                model._warn_of_foreign_call()
            return result

        return step

    def _prepare(self):
        """Does what needs all variables, once they are there."""
        model = self._model
        model._check_trainable()
        model._track_training_state()
        self._trainable = self._find_trainable()
        model._variable_order = model._find_variable_order()
