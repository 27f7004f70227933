"""What a trained model looks at: attention, contributions of its parts, and features along a torsion, with controls."""

from sdas.interpret.attention import attention_weights, pair_attention
from sdas.interpret.interpretation import interpret

__all__ = ["attention_weights", "interpret", "pair_attention"]
