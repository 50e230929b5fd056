"""Hindsight Instruction Relabeling for T5-family models, in JAX."""
