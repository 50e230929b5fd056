"""Data: every source gives the same `Example`s, split into train, dev and test."""

from hir_jax.data.example import Example
from hir_jax.data.fields import check_given
from hir_jax.data.sources import load
from hir_jax.data.splits import Splits

__all__ = ["Example", "Splits", "check_given", "load"]
