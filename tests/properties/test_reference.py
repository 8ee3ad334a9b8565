"""Generated arguments and data against the step written by hand in NumPy."""

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st

from keras_esam import selection
from keras_esam import subsets
from tests import conftest
from tests import numpy_reference as reference
from tests import reference_run
from tests.backends import BACKEND


@st.composite
def cases(draw):
    batch_size = draw(st.integers(1, 9))
    hundredths = st.integers(1, 100).map(lambda number: number / 100)
    arguments = {
        "rho": draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])),
        "beta": draw(st.sampled_from([1.0, 0.5, 0.6]) | hundredths),
        "gamma": draw(st.sampled_from([1.0, 0.5]) | hundredths),
        "granularity": draw(st.sampled_from(list(subsets.GRANULARITIES))),
        "rank_by": draw(st.sampled_from(list(selection.RANKINGS))),
        "ascent": draw(st.sampled_from(["current", "current", "momentum"])),
        "start": draw(st.integers(0, 2)),
        "adaptive": draw(st.booleans()),
        "scale": draw(st.sampled_from(["horvitz_thompson", "authors"])),
        "micro_batch_size": draw(st.none() | st.integers(1, batch_size + 1)),
        "seed": draw(st.integers(0, 2**16)),
    }
    if arguments["ascent"] == "momentum":
        # What goes together with it.
        arguments["micro_batch_size"] = None
        if arguments["rank_by"] == "sharpness":
            arguments["rank_by"] = "loss"
    run_eagerly = draw(st.sampled_from([True, True, True, True, False]))
    if arguments["granularity"] == "weight" or arguments["rank_by"] == "random":
        # What is drawn is recorded for the reference, once in a step.
        arguments["micro_batch_size"] = None
        run_eagerly = True
    return reference_run.Case(
        arguments,
        seed=draw(st.integers(0, 2**16)),
        num_samples=draw(st.integers(1, 5 * batch_size)),
        batch_size=batch_size,
        learning_rate=0.125,
        scale=draw(st.sampled_from([0.1, 1.0, 3.0])),
        weights=draw(st.sampled_from([None, "uniform", "some_zero", "zero"])),
        run_eagerly=run_eagerly,
    )


def kept_without_near_ties(tolerance):
    """`reference.kept_samples` for cases that rounding does not decide.

    Rounding errors of that size change which samples are kept where one that is
    kept and one that is dropped have almost the same score. They change nothing
    where these have weight 0, and so no gradient.
    """
    kept_samples = reference.kept_samples

    def kept(*arguments):
        *_, weights, _ = arguments
        indices = kept_samples(*arguments)
        scores = reference.scores(*arguments)
        dropped = np.delete(scores, indices)
        lowest = scores[indices].min()
        near = np.abs(scores - lowest) < tolerance
        decided = dropped.size == 0 or lowest - dropped.max() > tolerance
        assume(decided or not weights[near].any())
        return indices

    return kept


@pytest.mark.filterwarnings("ignore:`fit` ended after")
@given(cases())
def test_training_equals_the_reference(case):
    """In float64, but on PyTorch, where Keras computes parts in float32."""
    is_double = BACKEND != "torch"
    tolerance = 1e-10 if is_double else 1e-5
    conftest.set_float64(is_double)
    try:
        with pytest.MonkeyPatch.context() as patch:
            kept = kept_without_near_ties(tolerance)
            patch.setattr(reference, "kept_samples", kept)
            reference_run.check(case, tolerance)
    finally:
        conftest.set_float64(False)
