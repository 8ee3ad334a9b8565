"""The loss of a model over a data set, as a function of its weights."""

import functools

from keras import ops

from keras_esam.analysis import batches
from keras_esam.analysis import checks
from keras_esam.backends import backend
from keras_esam.subsets import is_weight


class MeanLoss:
    """Mean loss of a model over a data set, and its derivatives.

    It is the loss that `evaluate` reports: in inference mode, with
    regularisation and `add_loss`, batches weighted by their size. It is a
    function of the values of the weights, the trainable variables without the
    scales of float8 training. The model is called statelessly, so its
    variables, metrics and random states stay as they are.

    Args:
        model: `keras.Model`, compiled and built.
        data: See `batches.read_batches`. Read once and kept in memory.
    """

    def __init__(self, model, data):
        checks.check_model(model)
        self._model = model
        self._batches = batches.read_batches(data)
        sizes = [batches.num_samples(batch) for batch in self._batches]
        self._shares = [size / sum(sizes) for size in sizes]
        self._state = state_of(model)
        self.weights = weights_of(model)
        build_loss(model, self._batches[0])

    def loss(self, weights) -> float:
        """The loss at given values of the weights.

        Args:
            weights: List of tensors with the shapes of the weights.
        """
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

        Of gradients that a stateless call loses, as within `keras.remat`, only
        `gradients` knows.
        """
        totals = None
        for share, batch in zip(self._shares, self._batches, strict=True):
            products = self._products(weights, self._state, batch, vectors)
            totals = _add(totals, products, share)
        return totals

    def _loss_and_nothing(self, state, batch, weights):
        result = forward(self._model, batch, weights, state, training=False)
        return result.loss, ()

    @functools.cached_property
    def _loss(self):
        def function(weights, state, batch):
            return self._loss_and_nothing(state, batch, weights)[0]

        return compiled(self._model, function)

    @functools.cached_property
    def _gradients(self):
        def function(weights, state, batch):
            loss, _, gradients = value_and_gradients(
                self._model,
                batch,
                state,
                functools.partial(self._loss_and_nothing, state, batch),
                weights,
            )
            return loss, gradients

        return compiled(self._model, function)

    @functools.cached_property
    def _products(self):
        def function(weights, state, batch, vectors):
            with backend.backward_scope(self._model):
                return backend.hessian_vector_product(
                    functools.partial(self._loss_and_nothing, state, batch),
                    weights,
                    vectors,
                )

        return compiled(self._model, function)


def weights_of(model) -> list:
    """Values of the trainable variables that are weights."""
    return [backend.value(v) for v in model.trainable_variables if is_weight(v)]


def state_of(model) -> list:
    """Values of all other variables of the model, trainable ones first."""
    scales = [v for v in model.trainable_variables if not is_weight(v)]
    return [backend.value(v) for v in (*scales, *model.non_trainable_variables)]


def _merged(model, weights, others):
    """A list for all trainable variables.

    Args:
        model: `keras.Model`.
        weights: List, one entry for each of the weights.
        others: List, one entry or more for each of the other variables.
    """
    weights, others = iter(weights), iter(others)
    return [
        next(weights if is_weight(v) else others)
        for v in model.trainable_variables
    ]


def compiled(model, function):
    """A function of tensors, compiled unless the model runs eagerly."""
    return function if model.run_eagerly else backend.compiled(function)


def forward(model, batch, weights, state, training):
    """A stateless forward pass.

    Args:
        model: `keras.Model`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the weights.
        state: List of tensors, values of the other variables.
        training: Boolean, training or inference mode.

    Returns:
        A `ForwardPass` with predictions and loss.
    """
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


def _values(model, weights, state):
    """Values of the trainable variables, and pairs for all others."""
    values = _merged(model, weights, state)
    others = state[len(values) - len(weights) :]
    return values, list(zip(model.non_trainable_variables, others, strict=True))


def value_and_gradients(model, batch, state, function, weights):
    """A function of the weights, and its gradients in their shapes.

    Args:
        model: `keras.Model`.
        batch: Tuple `(x, y, sample_weight)` that the function is about.
        state: List of tensors, values of the other variables.
        function: Function of a list of tensors that returns a scalar and a
            nested structure of other tensors.
        weights: List of tensors.

    Returns:
        Tuple of the scalar, the structure, and a list of tensors.

    Raises:
        ValueError: If a gradient would be lost in the stateless call.
    """
    with backend.backward_scope(model):
        value, others, gradients = backend.value_and_gradients(
            function, weights
        )
    # In inference mode scales have no gradient in plain Keras either.
    checked = _merged(model, gradients, state)
    values = _values(model, weights, state)
    backend.check_gradients(model, batch, *values, checked)
    gradients = [
        ops.zeros_like(weight) if gradient is None else gradient
        for gradient, weight in zip(gradients, weights, strict=True)
    ]
    return value, others, gradients


def build_loss(model, batch):
    """Builds the compiled loss, which Keras does when it is first called.

    Neither within a compiled function, which would keep the trackers of the
    outputs' losses, nor along with an optimizer for these weights.
    """
    loss = model._compile_loss
    if loss is not None and not loss.built:
        forward(model, batch, weights_of(model), state_of(model), False)


def _add(totals, terms, factor):
    terms = [term * factor for term in terms]
    if totals is None:
        return terms
    return [total + term for total, term in zip(totals, terms, strict=True)]
