"""Losses as pure functions of tensors. Importing this package alone does not import torch."""
