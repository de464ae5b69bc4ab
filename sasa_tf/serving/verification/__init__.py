"""Compares exported models, run by their own runtimes, with the trained model."""

from sasa_tf.serving.verification.verifier import Verification, VerificationError, Verifier

__all__ = ["Verification", "VerificationError", "Verifier"]
