"""Adaptive scaling: the law that a learning curve follows, and the rules that decide by it."""
