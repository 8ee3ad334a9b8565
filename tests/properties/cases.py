"""Generated networks, with their data and what `compile` and `fit` get."""

import dataclasses

import keras
import numpy as np
from hypothesis import strategies as st

layers = keras.layers

REGRESSION = ("mse", "mae", "huber", "log_cosh", "cosine_similarity")
LOSSES = (
    *REGRESSION,
    "sparse_categorical_crossentropy",
    "binary_crossentropy",
    "kl_divergence",
)
INPUT_DTYPES = ("float32", "float16", "int32", "uint8")
if keras.backend.backend() != "jax":  # Which warns that it has none.
    INPUT_DTYPES += ("float64",)
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "adamw": lambda: keras.optimizers.AdamW(
        0.01, use_ema=True, ema_overwrite_frequency=2
    ),
    "accumulating": lambda: keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=2
    ),
}


class ExtraLoss(layers.Layer):
    """Adds a loss on its input."""

    def call(self, inputs):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


@dataclasses.dataclass(frozen=True)
class Case:
    """What both models of a comparison share."""

    seed: int
    num_samples: int
    batch_size: int
    input_structure: str
    input_dtypes: tuple
    output_structure: str
    losses: tuple
    loss_weights: tuple | None
    weights: tuple | str | None
    policy: str
    regularizer: str | None
    activity_regularizer: str | None
    extra_loss: bool
    batch_norm: bool
    dropout: bool
    optimizer: str
    shuffle: bool
    validate: bool


def structures(draw):
    """A structure and the number of tensors in it."""
    structure = draw(st.sampled_from(["single", "list", "dict", "nested"]))
    size = {"single": 1, "nested": 3}.get(structure)
    return structure, size or draw(st.integers(1, 3))


@st.composite
def cases(draw):
    input_structure, num_inputs = structures(draw)
    output_structure, num_outputs = structures(draw)

    def each(number, *values):
        return draw(st.tuples(*[st.sampled_from(values)] * number))

    weighting = draw(st.sampled_from(["none", "one", "each"]))
    weights = {
        "none": None,
        "one": draw(st.sampled_from(["uniform", "some_zero", "zero"])),
        "each": each(num_outputs, "uniform", "some_zero", "zero", None),
    }[weighting]
    if weighting == "each" and not any(weights):
        weights = None  # Keras takes no list of weights that are all `None`.
    loss_weights = draw(
        st.none()
        | st.tuples(*[st.sampled_from([0.0, 0.3, 1.0, 2.5])] * num_outputs)
    )
    batch_size = draw(st.integers(1, 6))
    policy = draw(
        st.sampled_from(["float32", "mixed_bfloat16", "mixed_float16"])
    )
    # Keras can not add losses of layers, in half precision, to the others.
    adds = st.booleans() if policy == "float32" else st.just(False)
    values = {
        "seed": draw(st.integers(0, 2**16)),
        "num_samples": draw(st.integers(1, 3 * batch_size)),
        "batch_size": batch_size,
        "input_structure": input_structure,
        "input_dtypes": each(num_inputs, *INPUT_DTYPES),
        "output_structure": output_structure,
        "losses": each(num_outputs, *LOSSES),
        "loss_weights": loss_weights,
        "weights": weights,
        "policy": policy,
        "regularizer": draw(st.sampled_from([None, "l1", "l2"])),
        "activity_regularizer": "l2" if draw(adds) else None,
        "extra_loss": draw(adds),
        "batch_norm": draw(st.booleans()),
        "dropout": draw(st.booleans()),
        "optimizer": draw(st.sampled_from(list(OPTIMIZERS))),
        "shuffle": draw(st.booleans()),
        "validate": draw(st.booleans()),
    }
    return Case(**values)


def pack(structure, parts, prefix):
    """A structure of as many parts as it holds."""
    if structure == "single":
        return parts[0]
    if structure == "dict":
        return {f"{prefix}{i}": part for i, part in enumerate(parts)}
    if structure == "nested":
        return {"pair": [parts[0], parts[1]], f"{prefix}2": parts[2]}
    return list(parts)


def make_network(case):
    keras.utils.set_random_seed(case.seed)
    inputs = [
        keras.Input((2 + i,), dtype=dtype, name=f"in{i}")
        for i, dtype in enumerate(case.input_dtypes)
    ]
    parts = [
        layers.Dense(
            4,
            activation="tanh",
            kernel_regularizer=case.regularizer,
            activity_regularizer=case.activity_regularizer,
        )(layers.Rescaling(1.0)(part))
        for part in inputs
    ]
    hidden = layers.Add()(parts) if len(parts) > 1 else parts[0]
    if case.extra_loss:
        hidden = ExtraLoss()(hidden)
    if case.batch_norm:
        hidden = layers.BatchNormalization()(hidden)
    if case.dropout:
        hidden = layers.Dropout(0.3, seed=case.seed)(hidden)
    outputs = []
    for i, loss in enumerate(case.losses):
        activation = None if loss in REGRESSION else "softmax"
        output = layers.Dense(2 + i, activation=activation, name=f"out{i}")
        outputs.append(output(hidden))
    return keras.Model(
        pack(case.input_structure, inputs, "in"),
        pack(case.output_structure, outputs, "out"),
    )


def sample_weights(kind, rng, shape):
    if kind == "uniform":
        return rng.uniform(0.2, 2.0, shape).astype("float32")
    if kind == "some_zero":
        return rng.integers(0, 2, shape).astype("float32")
    return np.zeros(shape, "float32")


def make_data(case):
    """Tuple `(x, y)`, or `(x, y, sample_weight)`."""
    rng = np.random.default_rng(case.seed)
    n = case.num_samples
    x = [
        rng.uniform(0, 4, (n, 2 + i)).astype(dtype)
        for i, dtype in enumerate(case.input_dtypes)
    ]
    y = []
    for i, loss in enumerate(case.losses):
        if loss == "sparse_categorical_crossentropy":
            y.append(rng.integers(0, 2 + i, n))
        else:
            y.append(rng.uniform(0, 1, (n, 2 + i)).astype("float32"))
    data = [
        pack(case.input_structure, x, "in"),
        pack(case.output_structure, y, "out"),
    ]
    if isinstance(case.weights, str):
        data.append(sample_weights(case.weights, rng, n))
    elif case.weights is not None:
        weights = [
            None if kind is None else sample_weights(kind, rng, n)
            for kind in case.weights
        ]
        data.append(pack(case.output_structure, weights, "out"))
    return tuple(data)


def compile_options(case):
    losses = pack(case.output_structure, case.losses, "out")
    metrics = [["mae"] if loss in REGRESSION else [] for loss in case.losses]
    options = {"loss": losses, "run_eagerly": True}
    if case.output_structure == "nested":
        # Without metrics and weights of losses, which are by output.
        return options
    options["weighted_metrics"] = pack(case.output_structure, metrics, "out")
    if case.output_structure == "list" and len(metrics) == 1:
        # Before 3.15 Keras takes no list within a list of one.
        options["weighted_metrics"] = metrics[0]
    if case.loss_weights is not None:
        options["loss_weights"] = pack(
            case.output_structure, case.loss_weights, "out"
        )
    return options


def train(model, case):
    """Trains on the data of a case, and returns the logs."""
    model.compile(OPTIMIZERS[case.optimizer](), **compile_options(case))
    data = make_data(case)
    keras.utils.set_random_seed(case.seed)
    options = {"epochs": 1, "shuffle": case.shuffle, "verbose": 0}
    if case.validate:
        options["validation_data"] = data
    x, y, *weight = data
    return model.fit(
        x,
        y,
        batch_size=case.batch_size,
        sample_weight=weight[0] if weight else None,
        **options,
    ).history
