"""Operations that the clean and the ranking pass have in common, run once.

The layers below the perturbed ones do the same in both passes. An operation
that gets the very same tensors, and reads the very same values of variables, as
before has the same outputs, so the ranking pass takes those of the clean pass.
On TensorFlow that saves tracing the operation again, on PyTorch running it. XLA
merges such operations by itself.

Operations are known where Keras runs through a graph of them, in functional and
Sequential models: its private `Function._run_through_graph` is another function
while a pass shares, and does otherwise than before in the thread of that pass.
"""

import contextlib
import dataclasses
import threading

import keras
from keras.src.models.functional import Functional
from keras.src.ops.function import Function


@dataclasses.dataclass
class _Call:
    """What an operation got, read, assigned and returned.

    Args:
        leaves: List of its arguments, without their structure.
        versions: List of the `_version` of each of them.
        reads: Dict of `id` to a pair `(variable, value)`.
        updates: Dict of `id` to a pair `(variable, value)`.
        outputs: Nested structure of tensors.
        output_versions: List as `versions`.
    """

    leaves: list
    versions: list
    reads: dict = dataclasses.field(default_factory=dict)
    updates: dict = dataclasses.field(default_factory=dict)
    outputs: object = None
    output_versions: list | None = None

    def is_same(self, leaves, scope):
        return (
            len(leaves) == len(self.leaves)
            and all(map(_is_same, leaves, self.leaves))
            and _versions(leaves) == self.versions
            and _versions(self.outputs) == self.output_versions
            and all(
                scope.get_current_value(variable) is value
                for variable, value in self.reads.values()
            )
        )


class SharedOperations:
    """Keeps what a first pass computes and a second one may share.

    Args:
        model: The `ESAMModel`.
        x: Inputs of both passes, nested structure of tensors.
        perturbed: Indices of the trainable variables that have other values in
            the second pass. What depends on them is not kept.
    """

    def __init__(self, model, x, perturbed):
        variables = model.trainable_variables
        self._perturbed = {id(variables[index]) for index in perturbed}
        self._graph = _whole_graph(model)
        self._x = keras.tree.flatten(x)
        self._is_first = True

    @contextlib.contextmanager
    def within(self, scope):
        """Context of a pass.

        Args:
            scope: `RecordingScope` of the pass.
        """
        if self._is_first:
            self._calls, self._running, self._inputs = {}, [], None
            self._known = {id(leaf) for leaf in self._x}
            scope.observer = self
        self._scope, self._place = scope, self._current_place()
        self._num_runs = 0
        with _graphs_share(self):
            yield
        self._is_first, scope.observer = False, None

    def graph_inputs(self, graph, inputs):
        """The inputs with which Keras is to run through a graph.

        Args:
            graph: `keras.src.ops.function.Function`.
            inputs: Nested structure of tensors.

        Returns:
            Nested structure of tensors. Both passes make the same of the batch,
            but a cast gives another tensor each time.
        """
        if graph is not self._graph:
            return inputs
        self._num_runs += 1
        if self._num_runs > 1:
            return inputs
        if self._is_first:
            self._inputs = inputs
            self._known.update(map(id, keras.tree.flatten(inputs)))
        return self._inputs

    def shared(self, operation, call):
        """What is called in the place of an operation.

        Args:
            operation: `keras.Operation`.
            call: Function that calls it.
        """

        def run(*args, **kwargs):
            leaves = keras.tree.flatten((args, kwargs))
            if self._current_place() is not self._place:
                return call(*args, **kwargs)
            if self._is_first:
                return self._recorded(operation, call, leaves, args, kwargs)
            for earlier in self._calls.get(id(operation), ()):
                if earlier.is_same(leaves, self._scope):
                    for update in earlier.updates.values():
                        self._scope.add_update(update)
                    return earlier.outputs
            return call(*args, **kwargs)

        return run

    def _recorded(self, operation, call, leaves, args, kwargs):
        tensors = filter(keras.ops.is_tensor, leaves)
        if any(id(tensor) not in self._known for tensor in tensors):
            return call(*args, **kwargs)
        record = _Call(leaves, _versions(leaves))
        random_state = self._random_state()
        self._running.append(record)
        try:
            outputs = call(*args, **kwargs)
        finally:
            self._running.pop()
        is_clean = self._perturbed.isdisjoint(record.reads)
        if is_clean and self._random_state() == random_state:
            record.outputs = outputs
            record.output_versions = _versions(outputs)
            self._calls.setdefault(id(operation), []).append(record)
            self._known.update(map(id, keras.tree.flatten(outputs)))
        return outputs

    def on_read(self, variable, value):
        for record in self._running:
            # Its own assignment is nothing that it depends on.
            if id(variable) not in record.updates:
                record.reads.setdefault(id(variable), (variable, value))

    def on_update(self, variable, value):
        for record in self._running:
            record.updates[id(variable)] = (variable, value)

    @staticmethod
    def _current_place():
        """An object, another one where tensors can't be used from here."""

    @staticmethod
    def _random_state():
        """State of random numbers that is no variable, to be compared."""


_CONSTANTS = (bool, float, int, str, type(None))


def _is_same(value, other):
    if isinstance(value, _CONSTANTS) and type(value) is type(other):
        return value == other
    return value is other


def _versions(tensors):
    """How often each was changed in place, which PyTorch can."""
    return [getattr(t, "_version", None) for t in keras.tree.flatten(tensors)]


def _whole_graph(model):
    """The graph of operations that is all that a model calls, or `None`."""
    network = model.model
    if not model._calls_network_alone:
        return None
    if type(network).call is keras.Sequential.call:
        return network._functional
    return network if type(network).call is Functional.call else None


class _Sharing(threading.local):
    """What the pass that runs in this thread shares, if it does."""

    operations = None


_sharing = _Sharing()
_lock = threading.Lock()
_num_passes = 0
_run_through_graph = Function._run_through_graph


def _run_and_share(graph, inputs, operation_fn=lambda op: op, **kwargs):
    shared = _sharing.operations
    if shared is None:
        return _run_through_graph(graph, inputs, operation_fn, **kwargs)
    return _run_through_graph(
        graph,
        shared.graph_inputs(graph, inputs),
        lambda operation: shared.shared(operation, operation_fn(operation)),
        **kwargs,
    )


@contextlib.contextmanager
def _graphs_share(operations):
    global _num_passes
    with _lock:
        _num_passes += 1
        Function._run_through_graph = _run_and_share
    before, _sharing.operations = _sharing.operations, operations
    try:
        yield
    finally:
        _sharing.operations = before
        with _lock:
            _num_passes -= 1
            if _num_passes == 0:
                Function._run_through_graph = _run_through_graph
