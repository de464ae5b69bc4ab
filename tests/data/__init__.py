"""Tests of sasa_tf.data."""
