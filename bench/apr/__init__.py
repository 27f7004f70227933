"""Accuracy per FLOP: force errors of this library's model and of its peers after training with the same FLOPs."""
