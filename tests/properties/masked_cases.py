"""Generated networks on padded sequences, whose masks the losses respect."""

import dataclasses

import keras
import numpy as np
from hypothesis import strategies as st

from tests.backends import BACKEND
from tests.properties.cases import sample_weights

layers = keras.layers

NUM_STEPS, NUM_TOKENS = 4, 6


@dataclasses.dataclass(frozen=True)
class MaskedCase:
    """What both models of a comparison share.

    Args:
        mask_from: `"embedding"` or `"masking"`, the layer that makes the mask.
        weights: Kind of the sample weights, `None` for none.
        weights_per_step: Whether each time step has a weight of its own.
        shortest: Number of steps that no sequence goes below; at 0 there are
            samples without any, and whole batches of them.
    """

    seed: int
    num_samples: int
    batch_size: int
    mask_from: str
    recurrent: str | None
    pooled: bool
    loss: str
    weights: str | None
    weights_per_step: bool
    shortest: int

    @property
    def policy(self):
        return "float32"


@st.composite
def masked_cases(draw):
    batch_size = draw(st.integers(1, 6))
    return MaskedCase(
        seed=draw(st.integers(0, 2**16)),
        num_samples=draw(st.integers(1, 3 * batch_size)),
        batch_size=batch_size,
        mask_from=draw(st.sampled_from(["embedding", "masking"])),
        recurrent=draw(st.sampled_from([None, "SimpleRNN", "GRU"])),
        pooled=draw(st.booleans()),
        loss=draw(st.sampled_from(["mse", "mae", "cosine_similarity"])),
        weights=draw(st.sampled_from([None, "uniform", "some_zero", "zero"])),
        weights_per_step=draw(st.booleans()),
        shortest=draw(st.integers(0, 2)),
    )


def make_network(case):
    keras.utils.set_random_seed(case.seed)
    if case.mask_from == "embedding":
        stack = [
            keras.Input((NUM_STEPS,), dtype="int32"),
            layers.Embedding(NUM_TOKENS, 3, mask_zero=True),
        ]
    else:
        stack = [keras.Input((NUM_STEPS, 3)), layers.Masking()]
    if case.recurrent is not None:
        recurrent = getattr(layers, case.recurrent)
        stack.append(recurrent(3, return_sequences=True))
    stack.append(layers.Dense(3, activation="tanh"))
    if case.pooled:
        stack.append(layers.GlobalAveragePooling1D())
    return keras.Sequential([*stack, layers.Dense(2)])


def make_data(case):
    """Tuple `(x, y, sample_weight)`, the last one `None` for none."""
    rng = np.random.default_rng(case.seed)
    n = case.num_samples
    if case.mask_from == "embedding":
        x = rng.integers(1, NUM_TOKENS, (n, NUM_STEPS))
    else:
        x = rng.normal(size=(n, NUM_STEPS, 3)).astype("float32")
    lengths = rng.integers(case.shortest, NUM_STEPS + 1, n)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0
    shape = (n,) if case.pooled else (n, NUM_STEPS)
    y = rng.normal(size=(*shape, 2)).astype("float32")
    if case.weights is None:
        return x, y, None
    if not case.pooled and not case.weights_per_step:
        # Not `(n,)`, which Keras can not multiply by the mask. On PyTorch it
        # does so in place, in which nothing is broadcast.
        shape = (n, NUM_STEPS if BACKEND == "torch" else 1)
    return x, y, sample_weights(case.weights, rng, shape)


def train(model, case):
    """Trains on the data of a case, and returns the logs."""
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        case.loss,
        weighted_metrics=["mae"],
        run_eagerly=True,
    )
    x, y, weights = make_data(case)
    return model.fit(
        x,
        y,
        sample_weight=weights,
        batch_size=case.batch_size,
        shuffle=False,
        verbose=0,
    ).history
