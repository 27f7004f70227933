"""Other people's models beside ours: systems, one process per model, and an adapter for each.

An adapter is a module with `VARIANTS`, the ways in which it can run, and `build(settings)`, which returns a
:class:`peers.model.Model`. It uses the model's public interface and its own recommended settings; nothing of it is
copied. Each model runs in a process of its own, with the interpreter of the environment in which it is installed, so
that models whose requirements exclude one another take their steps in turn.
"""
