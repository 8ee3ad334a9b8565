"""The train function of `fit`: one compiled step per plan."""

import contextlib


class StepDispatcher:
    """Runs the compiled step that is due, see `keras_esam.step_plan`.

    The choice is made on the host: XLA is slow for convolutions inside of
    conditionals, and a step saves gradients only if its subset is static. A
    step is traced when it is first due.

    A dispatcher of a backend extends it with `__call__()`, which runs one
    execution, and `_make_function()`, which gets the arguments of the call too.

    Args:
        model: The `ESAMModel`.
    """

    # In which context a step is traced.
    tracing = contextlib.nullcontext

    def __init__(self, model):
        self._model = model
        self._functions = {}
        self._weights = None

    def _run(self, plan, *args):
        """Runs the step of a plan."""
        if plan in self._functions:
            return self._functions[plan](*args)
        self.forget_if_weights_changed()
        self._forget_other_stages(plan)
        # Kept if data of unknown length ends in the call: it is compiled then.
        self._functions[plan] = self._make_function(plan, *args)
        with self.tracing():
            return self._functions[plan](*args)

    def forget_if_weights_changed(self):
        """Drops the compiled steps if layers were frozen or unfrozen.

        Steps that were compiled before and after it would train other weights.
        """
        weights = [id(variable) for variable in self._model.trainable_variables]
        if self._weights is not None and weights != self._weights:
            self._functions.clear()
            self._prepare()

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
            self._model._traced_plan = plan
            return self._model.train_step(*args)

        return step

    def _prepare(self):
        """Does what needs all variables, once they are there."""
        model = self._model
        model._check_trainable()
        if model.ascent == "previous":
            model._gradient_memory.build(model.trainable_variables)
        self._weights = [id(variable) for variable in model.trainable_variables]
        model._variable_order = model._find_variable_order()
