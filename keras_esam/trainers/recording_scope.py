"""A stateless scope whose variable updates can be carried out later."""

import keras


class RecordingScope(keras.StatelessScope):
    """`keras.StatelessScope` that knows which variables were assigned in it.

    Inside, variables have the given values and assignments stay in the scope.
    `commit()` makes the assignments real, and without it nothing happened. It
    records every variable, also those that no layer tracks, such as the state
    of Keras' global seed generator.

    Args:
        state_mapping: List of `(variable, value)` pairs. Other variables have
            their current values.
        on_assign: Optional function `on_assign(variable, value)` whose result
            is assigned in the place of `value`.

    Example:

    ```python
    with RecordingScope([(v, perturbed) for v, perturbed in pairs]) as scope:
        y_pred = model(x, training=True)
    scope.commit()  # BatchNormalization statistics, dropout seeds, ...
    ```
    """

    def __init__(self, state_mapping, on_assign=None):
        super().__init__(state_mapping, collect_losses=True)
        self._on_assign = on_assign
        self._assigned = {}

    def add_update(self, update):
        variable, value = update
        if self._on_assign is not None:
            value = self._on_assign(variable, value)
        super().add_update((variable, value))
        self._assigned[id(variable)] = variable

    def commit(self):
        """Assigns the recorded values. To be called outside of the scope."""
        for variable in self._assigned.values():
            variable.assign(self.get_current_value(variable))
