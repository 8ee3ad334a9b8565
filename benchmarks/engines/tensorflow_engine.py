"""Benchmarks on TensorFlow: data, and operations of the traced graph.

It counts the convolutions and matrix products of the traced step as often as
TensorFlow runs them. TensorFlow drops unneeded operations, and merges equal
ones, such as the unperturbed layers of the clean pass and of the ranking pass.
The same is done here on the traced graph.
"""

import graphlib
import math

import keras
import tensorflow as tf

from benchmarks.batches import ShuffledBatches


def make_data(batch):
    """`tf.data.Dataset` that repeats one batch."""
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    return without_autotune(dataset)


def shuffled_batches(x, y, batch_size, seed, augment=False, epoch=0):
    """Like `ShuffledBatches`, but cheaper here for simple tasks.

    Simple tasks begin with the first epoch.
    """
    if augment:
        return ShuffledBatches(x, y, batch_size, seed, augment, epoch)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.shuffle(len(x), seed=seed)
    return without_autotune(dataset.batch(batch_size, drop_remainder=True))


def set_threads(number):
    """Sets the number of threads, before TensorFlow has used any."""
    tf.config.threading.set_intra_op_parallelism_threads(number)
    tf.config.threading.set_inter_op_parallelism_threads(number)


def without_autotune(dataset):
    """The data set without tf.data's tuner, which can delay an epoch's end."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def devices():
    """List of the names of the devices."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(g) for g in gpus]
    return [d.get("device_name", "GPU") for d in details] or ["cpu"]


def device_memory():
    """Peak bytes of accelerator memory, or `None` without one."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def trace(step, model, x, y):
    """The graph of a training step of the form of `train_step`."""
    # Without AutoGraph, as in the train function of Keras.
    function = tf.function(lambda x, y: step((x, y)), autograph=False)
    return function.get_concrete_function(x, y).graph


def count_operations(graph):
    """Floating-point operations of a graph, after merging and pruning.

    A multiplication and an addition are two operations.
    """
    return sum(_cost(op) for op in distinct_operations(graph))


def distinct_operations(graph):
    """The needed operations of a graph, without repeated ones."""
    representatives, classes = {}, {}
    order = graphlib.TopologicalSorter(_predecessors(graph))
    for op in order.static_order():
        classes[op] = representatives.setdefault(_key(op, classes), op)
    return list(representatives.values())


def _predecessors(graph):
    """Dict of each needed operation to the operations that it needs."""
    outputs = [t.op for t in keras.tree.flatten(graph.structured_outputs)]
    pending = [*outputs, *graph.control_outputs]
    predecessors = {}
    while pending:
        op = pending.pop()
        if op not in predecessors:
            predecessors[op] = [t.op for t in op.inputs]
            predecessors[op] += op.control_inputs
            pending += predecessors[op]
    return predecessors


def _key(op, classes):
    """A key that is equal for operations that compute the same."""
    if op.op_def.is_stateful or op.type == "Placeholder":
        return op
    attributes = sorted(
        (name, value.SerializeToString(deterministic=True))
        for name, value in op.node_def.attr.items()
        if not name.startswith("_")
    )
    inputs = tuple((classes[t.op], t.value_index) for t in op.inputs)
    controls = frozenset(classes[c] for c in op.control_inputs)
    return op.type, tuple(attributes), inputs, controls


def _cost(op):
    """Floating-point operations of a convolution or matrix product, else 0."""
    kind = op.type
    inputs = [tensor.shape for tensor in op.inputs]
    if kind == "Conv2D":
        return 2 * _size(op.outputs[0].shape) * _size(inputs[1][:-1])
    if kind == "Conv2DBackpropInput":
        return 2 * _size(inputs[2]) * _size(inputs[1][:-1])
    if kind == "Conv2DBackpropFilter":
        return 2 * _size(inputs[2]) * _size(op.outputs[0].shape[:-1])
    if kind in ("MatMul", "BatchMatMulV2"):
        transposed = "transpose_a" if kind == "MatMul" else "adj_x"
        summed = inputs[0][-2 if op.get_attr(transposed) else -1]
        return 2 * _size(op.outputs[0].shape) * summed
    if kind == "Einsum":
        labels = op.get_attr("equation").decode().split("->")[0].split(",")
        sizes = {}
        for names, shape in zip(labels, inputs, strict=True):
            sizes.update(zip(names, shape, strict=True))
        return (2 if len(labels) > 1 else 0) * math.prod(sizes.values())
    if "Conv" in kind or "MatMul" in kind:
        raise NotImplementedError(f"The cost of {kind} is not known.")
    return 0


def _size(shape):
    return math.prod(shape.as_list())
