"""The loss of a model over a data set, as a function of its weights.

In these functions `weights` is a list of tensors, the values of the trainable
variables without the scales of float8 training. `state` is a pair of lists: the
values of these scales, and of the non-trainable variables.
"""

import keras
from keras import ops

from keras_esam import arguments
from keras_esam import ascent
from keras_esam.analysis import batches
from keras_esam.backends import backend
from keras_esam.variables import is_weight


class MeanLoss:
    """Mean loss of a model over a data set, and its derivatives.

    It is the loss that `evaluate` reports: in inference mode, with
    regularisation and `add_loss`, batches weighted by their size. The model is
    called statelessly, so its variables, metrics and random states do not
    change. The data, see `batches.read_batches`, are read once and kept in
    memory.
    """

    def __init__(self, model, data):
        check_model(model)
        self._model = model
        self._batches = batches.read_batches(data)
        sizes = [batches.num_samples(batch) for batch in self._batches]
        self._shares = [size / sum(sizes) for size in sizes]
        self._state = state_of(model)
        self.weights = weights_of(model)
        build_loss(model, self._batches[0])
        self._loss = compiled(model, self._loss_of_batch)
        self._gradients = compiled(model, self._gradients_of_batch)
        self._products = compiled(model, self._products_of_batch)

    def loss(self, weights) -> float:
        """The loss at given values of the weights."""
        return sum(
            share * float(self._loss(weights, self._state, batch))
            for share, batch in zip(self._shares, self._batches, strict=True)
        )

    def gradients(self, weights) -> tuple[float, list]:
        """The loss, and a list of its gradients in the shapes of `weights`."""
        loss, totals = 0.0, None
        for share, batch in zip(self._shares, self._batches, strict=True):
            value, gradients = self._gradients(weights, self._state, batch)
            loss += share * float(value)
            totals = _add(totals, gradients, share)
        return loss, totals

    def hessian_vector_product(self, weights, vectors) -> list:
        """Products of the Hessian with vectors in the shapes of `weights`.

        Only `gradients` checks that no gradient is lost in a stateless call,
        for instance within `keras.remat`.
        """
        totals = None
        for share, batch in zip(self._shares, self._batches, strict=True):
            products = self._products(weights, self._state, batch, vectors)
            totals = _add(totals, products, share)
        return totals

    def _loss_of_batch(self, weights, state, batch):
        return forward(self._model, batch, weights, state, training=False).loss

    def _gradients_of_batch(self, weights, state, batch):
        loss, _, gradients = value_and_gradients(
            self._model, batch, state, self._loss_at(state, batch), weights
        )
        return loss, gradients

    def _products_of_batch(self, weights, state, batch, vectors):
        with backend.backward_scope(self._model):
            return backend.hessian_vector_product(
                self._loss_at(state, batch), weights, vectors
            )

    def _loss_at(self, state, batch):
        """A function of the weights for `backend.value_and_gradients`."""
        return lambda weights: (self._loss_of_batch(weights, state, batch), ())


def check_model(model):
    """Checks that a model is compiled and built and has weights."""
    if not isinstance(model, keras.Model):
        kind = "an instance of `keras.Model`"
        raise arguments.type_error("model", kind, model)
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled, since the loss is that given to "
            f"`compile()`. Received: model={model}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built, call it on data before. "
            f"Received: model={model}"
        )
    if not model.trainable_variables:
        raise ValueError(
            f"`model` must have trainable weights. Received: model={model}"
        )


def weights_of(model) -> list:
    return [backend.value(v) for v in model.trainable_variables if is_weight(v)]


def state_of(model) -> tuple[list, list]:
    scales = [v for v in model.trainable_variables if not is_weight(v)]
    return (
        [backend.value(v) for v in scales],
        [backend.value(v) for v in model.non_trainable_variables],
    )


def compiled(model, function):
    """A function of tensors, compiled unless the model runs eagerly."""
    return function if model.run_eagerly else backend.compiled(function)


def build_loss(model, batch):
    """Builds the compiled loss, which Keras does when it is first called.

    This must not happen in a compiled function, which would keep the trackers
    of the outputs' losses, nor build an optimizer for these weights.
    """
    loss = model._compile_loss
    if loss is not None and not loss.built:
        forward(model, batch, weights_of(model), state_of(model), False)


def forward(model, batch, weights, state, training):
    """A stateless pass of `(x, y, sample_weight)`, a `ForwardPass`."""
    with backend.recorded_if(False):
        result = backend.forward(
            model,
            batch,
            *_values(model, weights, state),
            per_sample=False,
            training=training,
        )
    if training:
        backend.check_random_numbers()
    return result


def value_and_gradients(model, batch, state, function, weights):
    """Results of a function of the weights, and its gradients.

    The function, for one batch, returns a scalar and a nested structure of
    other tensors; they come before the list of gradients. A gradient that the
    stateless call would lose is a `ValueError`.
    """
    with backend.backward_scope(model):
        value, others, gradients = backend.value_and_gradients(
            function, weights
        )
    # In inference mode scales have no gradient in plain Keras either.
    checked = _merged(model, gradients, state[0])
    values = _values(model, weights, state)
    backend.check_gradients(model, batch, *values, checked)
    gradients = [
        ops.zeros_like(weight) if gradient is None else gradient
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    return value, others, gradients


def perturbed(weights, gradients, rho, adaptive):
    """The weights plus SAM's or ASAM's step of length `rho`."""
    steps, _ = ascent.ascent_step(
        gradients, weights, rho, [1.0] * len(weights), adaptive=adaptive
    )
    return [w + step for w, step in zip(weights, steps, strict=True)]


def _values(model, weights, state):
    """Values of the trainable variables, and pairs for all others."""
    scales, others = state
    pairs = zip(model.non_trainable_variables, others, strict=True)
    return _merged(model, weights, scales), list(pairs)


def _merged(model, weights, scales):
    """Merges the lists of weights and scales for all trainable variables."""
    weights, scales = iter(weights), iter(scales)
    return [
        next(weights if is_weight(v) else scales)
        for v in model.trainable_variables
    ]


def _add(totals, terms, factor):
    terms = [term * factor for term in terms]
    if totals is None:
        return terms
    return [total + term for total, term in zip(totals, terms, strict=True)]
