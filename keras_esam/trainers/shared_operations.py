"""Operations that the clean and the ranking pass have in common, run once.

The layers below the perturbed ones do the same in both passes. An operation
that gets the very same tensors, and reads the very same values of variables, as
before has the same outputs, so the ranking pass takes those of the clean pass.
On TensorFlow that saves tracing the operation again, on PyTorch running it. XLA
merges such operations by itself.

Layers of a user are called in both passes, since they may do something to
objects of Python, and so are those that come after them.

Operations are known where Keras runs through a graph of them, in functional and
Sequential models: `keras.Function._run_through_graph`, which is private, is
another function while a pass shares, and does otherwise than before in the
thread of that pass.
"""

import contextlib
import dataclasses
import threading

import keras
from keras.src.models.functional import Functional


@dataclasses.dataclass
class _Call:
    """One call of an operation in the first pass.

    Args:
        operation: `keras.Operation`, or `None` for the pass itself.
        arguments: List of its arguments, without their structure.
        structure: The structure of the arguments, without them.
        versions: List of the versions of the arguments.
        reads: Dict of `id` to a pair `(variable, value)`.
        updates: Dict of `id` to a pair `(variable, value)`.
        outputs: Nested structure of tensors.
        output_versions: List of the versions of the outputs.
        is_kept: Boolean, whether a second pass may take the outputs.
        inner: List of the calls within this one, in their order, if it is not
            kept itself.
        num_met: Integer, how many of these the second pass has come to.
    """

    operation: object = None
    arguments: list = dataclasses.field(default_factory=list)
    structure: object = None
    versions: list = dataclasses.field(default_factory=list)
    reads: dict = dataclasses.field(default_factory=dict)
    updates: dict = dataclasses.field(default_factory=dict)
    outputs: object = None
    output_versions: list = dataclasses.field(default_factory=list)
    is_kept: bool = False
    inner: list = dataclasses.field(default_factory=list)
    num_met: int = 0

    def keep(self, outputs):
        self.is_kept, self.inner = True, []
        self.outputs, self.output_versions = outputs, _versions(outputs)

    def forget(self):
        """Lets go of all tensors."""
        self.arguments, self.reads, self.updates = [], {}, {}

    def next(self, operation):
        """The next call within this one, `None` if it is of another one."""
        if self.num_met == len(self.inner):
            return None
        call = self.inner[self.num_met]
        self.num_met += 1
        return call if call.operation is operation else None

    def is_same(self, arguments, structure, scope):
        return (
            self.is_kept
            and structure == self.structure
            and all(map(_is_same, arguments, self.arguments))
            and _versions(arguments) == self.versions
            and _versions(self.outputs) == self.output_versions
            and all(
                scope.get_current_value(variable) is value
                for variable, value in self.reads.values()
            )
        )


class SharedOperations:
    """Keeps what a first pass computes and a second one may share.

    The calls of operations in both passes are compared in their order.

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
        self._x = _leaves(x)
        self._is_first = True

    @contextlib.contextmanager
    def within(self, scope):
        """Context of a pass.

        Args:
            scope: `RecordingScope` of the pass.
        """
        if self._is_first:
            self._inputs = None
            self._known = {id(leaf) for leaf in self._x}
            self._pass = _Call()
            scope.observer = self
        self._running = [self._pass]
        self._scope, self._place = scope, self._current_place()
        self._num_runs = 0
        with _graphs_share(self):
            yield
        if not self._is_first:
            # The tensors are not to live until the end of the step.
            self._inputs, self._pass, self._running = None, _Call(), []
        self._is_first, scope.observer = False, None

    def graph_inputs(self, graph, inputs):
        """The inputs with which Keras is to run through a graph.

        Args:
            graph: `keras.Function`.
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
            self._inputs = inputs, _versions(inputs)
            self._known.update(map(id, _leaves(inputs)))
        earlier, versions = self._inputs
        return earlier if _versions(earlier) == versions else inputs

    def shared(self, operation, call):
        """What is called in the place of an operation.

        Args:
            operation: `keras.Operation`.
            call: Function that calls it.
        """
        if self._is_first:
            return lambda *args, **kwargs: self._first(
                operation, call, args, kwargs
            )
        return lambda *args, **kwargs: self._second(
            operation, call, args, kwargs
        )

    def _first(self, operation, call, args, kwargs):
        record = _Call(operation)
        self._running[-1].inner.append(record)
        arguments, structure = _flatten((args, kwargs))
        may_keep = (
            self._current_place() is self._place
            and all(
                id(argument) in self._known
                for argument in arguments
                if keras.ops.is_tensor(argument)
            )
            and _is_of_keras(operation)
        )
        if may_keep:
            record.arguments = arguments
            record.structure = structure
            record.versions = _versions(arguments)
        random_state = self._random_state()
        self._running.append(record)
        try:
            outputs = call(*args, **kwargs)
        finally:
            self._running.pop()
        if (
            may_keep
            and self._perturbed.isdisjoint(record.reads)
            and self._random_state() == random_state
        ):
            record.keep(outputs)
            self._known.update(map(id, _leaves(outputs)))
        else:
            record.forget()
        return outputs

    def _second(self, operation, call, args, kwargs):
        arguments, structure = _flatten((args, kwargs))
        earlier = self._running[-1].next(operation)
        if earlier is None:
            earlier = _Call()
        elif self._current_place() is self._place and earlier.is_same(
            arguments, structure, self._scope
        ):
            for update in earlier.updates.values():
                self._scope.add_update(update)
            return earlier.outputs
        self._running.append(earlier)
        try:
            return call(*args, **kwargs)
        finally:
            self._running.pop()

    def on_read(self, variable, value):
        for record in self._running[1:]:
            # Its own assignment is nothing that it depends on.
            if id(variable) not in record.updates:
                record.reads.setdefault(id(variable), (variable, value))

    def on_update(self, variable, value):
        for record in self._running[1:]:
            record.updates[id(variable)] = (variable, value)

    @staticmethod
    def _current_place():
        """An object, another one where tensors can't be used from here."""

    @staticmethod
    def _random_state():
        """State of random numbers that is no variable, to be compared."""


# Layers that call what is not Keras'.
_WRAPPERS = (
    keras.layers.Lambda,
    keras.layers.TFSMLayer,
    keras.layers.TorchModuleWrapper,
    keras.layers.JaxLayer,
    keras.layers.FlaxLayer,
)


def _is_of_keras(operation):
    """Whether all that is called is code of Keras."""
    if not isinstance(operation, keras.Layer):
        return _has_code_of_keras(type(operation))
    return all(
        _has_code_of_keras(type(layer))
        and _has_code_of_keras(getattr(layer, "activation", None))
        and not isinstance(layer, _WRAPPERS)
        for layer in operation._flatten_layers()
    )


def _has_code_of_keras(thing):
    if thing is None or isinstance(thing, keras.Layer):
        return True
    return thing.__module__.split(".")[0] == "keras"


_CONSTANTS = (bool, float, int, str, type(None))


def _is_same(value, other):
    if isinstance(value, _CONSTANTS) and type(value) is type(other):
        return value == other
    return value is other


def _flatten(tree):
    """Leaves of a tree, and its structure with `None` for each of them.

    `keras.tree.flatten` leaves cycles of objects behind on PyTorch, in which
    the tensors would live on.
    """
    leaves = []
    structure = keras.tree.map_structure(leaves.append, tree)
    return leaves, structure


def _leaves(tree):
    return _flatten(tree)[0]


def _versions(tensors):
    """How often each was changed in place, which PyTorch can."""
    return [_version(tensor) for tensor in _leaves(tensors)]


def _version(tensor):
    try:
        return getattr(tensor, "_version", None)
    except RuntimeError:  # A tensor of `torch.inference_mode` does not count.
        return object()  # Equal to no other.


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
_run_through_graph = keras.Function._run_through_graph


def _run_and_share(graph, inputs, operation_fn=lambda op: op, call_fn=None):
    shared = _sharing.operations
    if shared is None or call_fn is not None or _is_symbolic(inputs):
        return _run_through_graph(graph, inputs, operation_fn, call_fn)
    return _run_through_graph(
        graph,
        shared.graph_inputs(graph, inputs),
        lambda operation: shared.shared(operation, operation_fn(operation)),
    )


def _is_symbolic(inputs):
    return any(isinstance(leaf, keras.KerasTensor) for leaf in _leaves(inputs))


@contextlib.contextmanager
def _graphs_share(operations):
    global _num_passes, _run_through_graph
    with _lock:
        if _num_passes == 0:
            _run_through_graph = keras.Function._run_through_graph
        _num_passes += 1
        keras.Function._run_through_graph = _run_and_share
    before, _sharing.operations = _sharing.operations, operations
    try:
        yield
    finally:
        _sharing.operations = before
        with _lock:
            _num_passes -= 1
            if _num_passes == 0:
                keras.Function._run_through_graph = _run_through_graph
