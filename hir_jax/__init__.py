"""Hindsight Instruction Relabeling for T5-family models, in JAX."""

__version__ = "0.2.0"
