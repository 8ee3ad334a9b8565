"""Attributes that an `ESAMModel` takes from its network."""

import keras

from keras_esam import arguments
from keras_esam import tasks

# Methods of a network that `fit`, `evaluate` and `predict` would call on the
# network itself. The wrapper has its own, so a network that overrides them
# would train differently.
TRAINER_METHODS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "metrics",
    "get_metrics_result",
    "reset_metrics",
    "stateless_compute_loss",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
)


# What to do instead of overriding some of them.
ADVICE = {
    "compute_loss": (
        "`compute_loss()` along with `compute_sample_losses()`, or with "
        '`gamma=1` or `rank_by="random"`'
    ),
    "train_step": (
        "`train_step()` with a call of `super().train_step()`, which trains"
    ),
    **dict.fromkeys(
        tasks.METHODS,
        "preprocessing may move into the data or into layers of the network",
    ),
}


def check_network(model, wrapper):
    """Checks that a network can be wrapped in the class `wrapper`."""
    if not isinstance(model, keras.Model):
        kind = "an instance of `keras.Model`"
        raise arguments.type_error("model", kind, model)
    if isinstance(model, wrapper):
        raise ValueError(
            f"`model` must be a plain network and not an `{wrapper.__name__}`. "
            "To train a wrapped network otherwise, wrap its attribute `model`. "
            f"Received: model={model}"
        )
    methods = TRAINER_METHODS
    if not tasks.is_task(model):
        methods += tasks.METHODS
    overridden = [
        method
        for method in methods
        if getattr(type(model), method) is not getattr(keras.Model, method)
    ]
    if overridden:
        name = wrapper.__name__
        advice = dict.fromkeys(v for k, v in ADVICE.items() if k in overridden)
        raise ValueError(
            f"`model` must not override {overridden}: `{name}` trains with its "
            f"own. Override them in a subclass of `{name}` instead"
            f"{'; '.join(['', *advice])}. Received: model={model}"
        )


def _of_network(name, or_layer=False):
    """Property with the network's value, errors included.

    If there is none, `or_layer` takes the value of the wrapper's call in
    another model.
    """

    def get(model):
        is_alone = model._calls_network_alone
        if or_layer and not (is_alone and hasattr(model.model, name)):
            return getattr(keras.Model, name).fget(model)
        if not is_alone:
            raise AttributeError(
                f"`{type(model).__name__}` has a `call()` of its own, so its "
                f"`{name}` is not known. Its network has "
                f"`model.model.{name}`."
            )
        return getattr(model.model, name)

    return property(get, doc=f"`{name}` of the network, as Keras has it.")


class NetworkAttributes:
    """Part of `ESAMModel`: attributes that it takes from its network.

    Functional networks always have them, Sequential networks once they are
    built, subclassed networks never.
    """

    input = _of_network("input", or_layer=True)
    inputs = _of_network("inputs")
    input_shape = _of_network("input_shape")
    output = _of_network("output", or_layer=True)
    outputs = _of_network("outputs")
    output_shape = _of_network("output_shape")
    operations = _of_network("operations")

    @property
    def input_dtype(self) -> str:
        """Dtype of the network's inputs, if they have the same dtype."""
        inputs = getattr(self, "inputs", [])
        dtypes = {keras.backend.standardize_dtype(i.dtype) for i in inputs}
        return dtypes.pop() if len(dtypes) == 1 else super().input_dtype

    @property
    def layers(self) -> list[keras.Layer]:
        """Layers of the network, then layers that a subclass adds."""
        added = [layer for layer in super().layers if layer is not self.model]
        return [*self.model.layers, *added]

    def compute_output_shape(self, *args, **kwargs):
        """Shape of the outputs, see `keras.Layer.compute_output_shape()`."""
        if not self._calls_network_alone:
            return super().compute_output_shape(*args, **kwargs)
        return self.model.compute_output_shape(*args, **kwargs)

    # Lets Keras find the outputs' dtypes and masks by a symbolic call.
    compute_output_shape._is_default = True

    @property
    def _build_shapes_dict(self):
        # TensorFlow's converters and `export` ask for it.
        if self._own_build_shapes:
            return self._own_build_shapes
        try:
            return {"input_shape": self.model.input_shape}
        except AttributeError:
            return self.model._build_shapes_dict

    @_build_shapes_dict.setter
    def _build_shapes_dict(self, value):
        self._own_build_shapes = value

    def get_build_config(self):
        # The network has its own in its config.
        return super().get_build_config() if self._own_build_shapes else None

    def __dir__(self):
        # Keras saves what it finds by these names. Its files have the network
        # in a list "layers/", see below.
        return [name for name in super().__dir__() if name != "layers"]


# The network itself, in its place in saved files. With `layers` its layers
# would be saved as if they were layers of the wrapper.
setattr(NetworkAttributes, "layers/", keras.Model.layers)
