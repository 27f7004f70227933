"""The layer as published, by the same training."""

from apr.trainers import sdas


def train(*arguments: object) -> object:
    """As `sdas.train`, with the published layer."""
    sdas.LAYER = "paper"
    return sdas.train(*arguments)
