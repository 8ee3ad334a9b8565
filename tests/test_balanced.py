import numpy as np
import pytest

from keras_esam.balanced import balanced

LABELS = np.array([0, 1, 2] * 10 + [2] * 7)


def test_equally_many_of_each_class_and_always_the_same():
    chosen = balanced(LABELS, 12)
    assert len(set(chosen)) == 12
    np.testing.assert_array_equal(np.bincount(LABELS[chosen]), [4, 4, 4])
    np.testing.assert_array_equal(chosen, balanced(LABELS, 12))


def test_smaller_part_is_within_a_larger_one():
    assert set(balanced(LABELS, 6)) < set(balanced(LABELS, 30))


@pytest.mark.parametrize("count", [0, 4, 33, -3])
def test_part_that_there_is_not(count):
    message = f"multiple of 3 and at most 30. Received: {count}"
    with pytest.raises(ValueError, match=message):
        balanced(LABELS, count)
