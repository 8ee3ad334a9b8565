"""A stateless scope whose variable updates can be carried out later."""

import keras


class RecordingScope(keras.StatelessScope):
    """`keras.StatelessScope` that knows which variables were assigned in it.

    Inside, variables have the given values and assignments stay in the scope.
    `updates` is the list of pairs `(variable, value)` of what was assigned:
    every variable, also one that no layer tracks, such as the state of Keras'
    global seed generator.

    Args:
        state_mapping: List of `(variable, value)` pairs. Other variables have
            their current values, or those of the stateless scope around it.
        on_assign: Optional function `on_assign(variable, value)` whose result
            is assigned in the place of `value`.

    Its attribute `observer`, if there is one, is told of what is read and
    assigned, `on_read(variable, value)` and `on_update(variable, value)`.

    Example:

    ```python
    with RecordingScope([(v, perturbed) for v, perturbed in pairs]) as scope:
        y_pred = model.model(x, training=True)
    for variable, value in scope.updates:
        variable.assign(value)  # BatchNormalization statistics, seeds, ...
    ```
    """

    def __init__(self, state_mapping, on_assign=None):
        super().__init__(state_mapping, collect_losses=True)
        self._on_assign = on_assign
        self._assigned = {}
        self.observer = None

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        if self.observer is not None:
            self.observer.on_read(variable, value)
        return value

    def add_update(self, update):
        variable, value = update
        if self._on_assign is not None:
            value = self._on_assign(variable, value)
        super().add_update((variable, value))
        self._assigned[id(variable)] = variable
        if self.observer is not None:
            self.observer.on_update(variable, value)

    @property
    def updates(self):
        return [
            (variable, self.get_current_value(variable))
            for variable in self._assigned.values()
        ]
