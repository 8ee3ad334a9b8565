"""KerasHub tasks, whose `fit` preprocesses its data.

A task, such as `keras_hub.models.TextClassifier`, overrides the methods below.
Each of them maps the task's preprocessor over the data, or fills in the task's
defaults of `compile`, and then calls `super()`. A wrapped task does the same,
with the wrapper as its `super()`. KerasHub is not imported for that.
"""

import functools
import inspect
import operator

import keras

from keras_esam.dispatcher import check_metric_names

METHODS = (
    "compile",
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)
NEED_COMPILE = ("fit", "evaluate", "train_on_batch", "test_on_batch")


def is_task(network: keras.Model) -> bool:
    """Whether a network preprocesses its data, as KerasHub tasks do."""
    return callable(getattr(network, "preprocess_samples", None)) and hasattr(
        network, "preprocessor"
    )


class TaskTrainer:
    """Part of `ESAMModel`: calls `compile`, `fit` etc. through a task."""

    def compile_from_config(self, config):
        """Compiles the model as it was when it was saved."""
        if type(self).compile is not TaskTrainer.compile:
            super().compile_from_config(config)  # Keras warns that it can't.
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)


def _method(name):
    @functools.wraps(getattr(keras.Model, name))
    def method(self, *args, **kwargs):
        network = self.model
        if name in NEED_COMPILE and network.compiled and not self.compiled:
            raise ValueError(
                f"You must call `compile()` before calling `{name}()`. "
                f"`{type(self).__name__}` does not take over the optimizer, "
                "loss and metrics that its network was compiled with. "
                f"Received: model={network}, compiled, in a wrapper that is not"
            )
        if name == "compile":
            _check_metrics(self, args, kwargs)
        trainer = super(TaskTrainer, self)
        if is_task(network):
            trainer = _double(network, trainer)
        return getattr(trainer, name)(*args, **kwargs)

    return method


def _check_metrics(model, args, kwargs):
    """Checks arguments of `compile()` before the metrics are built."""
    compile_signature = inspect.signature(keras.Model.compile)
    # A task's own arguments, such as `sampler`, are for the task.
    kwargs = {k: kwargs[k] for k in kwargs if k in compile_signature.parameters}
    given = compile_signature.bind_partial(model, *args, **kwargs).arguments
    metrics = [given.get("metrics"), given.get("weighted_metrics")]
    names = [
        getattr(metric, "name", getattr(metric, "__name__", metric))
        for metric in keras.tree.flatten(metrics)
    ]
    check_metric_names(model, [n for n in names if isinstance(n, str)])


for _name in METHODS:
    setattr(TaskTrainer, _name, _method(_name))


class _EndOfTask(keras.Model):
    """The `super()` of a task's double: calls the wrapper's methods."""

    # No attribute in `__dict__`, which the task shares.
    __slots__ = ("_trainer",)


for _name in METHODS:
    # The methods of `_trainer`, bound to it.
    setattr(
        _EndOfTask, _name, property(operator.attrgetter(f"_trainer.{_name}"))
    )


def _double(task, trainer):
    """A task's double, with `trainer` as the `super()` of its methods."""
    double = object.__new__(_class_of_double(type(task)))
    # Not set as Keras does, which would track the wrapper as a layer.
    object.__setattr__(double, "__dict__", task.__dict__)
    object.__setattr__(double, "_trainer", trainer)
    return double


@functools.lru_cache(maxsize=16)
def _class_of_double(task_class):
    class Order(type(task_class)):
        # The task's class is no base: KerasHub picks the class of a preset
        # from all subclasses, and must not find this one.
        def mro(cls):
            order = task_class.__mro__
            end = order.index(keras.Model)
            return [cls, *order[:end], _EndOfTask, *order[end:]]

    return Order(task_class.__name__, (_EndOfTask,), {})
