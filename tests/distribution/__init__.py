"""Tests of `tf.distribute` strategies, in processes of their own."""
