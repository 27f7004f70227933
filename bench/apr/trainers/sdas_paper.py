"""The layer as published, by the same training."""

from functools import partial

from apr.trainers import sdas

train = partial(sdas.train, layer="paper")
