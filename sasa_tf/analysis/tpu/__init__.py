"""What a TPU's compiler says about layers and models, without a TPU."""
