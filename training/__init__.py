"""Nightly retraining of a transfer-learning image classifier, with a gate on the BatchNorm gap."""
