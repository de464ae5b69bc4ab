"""The paper's tables compared to the computed cost of the models."""
