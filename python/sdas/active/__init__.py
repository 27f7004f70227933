"""Active learning: an ensemble, its uncertainty over a pool, labels for what it is least sure of, and again."""
