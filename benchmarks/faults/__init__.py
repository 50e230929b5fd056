"""Faults that `benchmarks/chaos.py` brings about in runs."""
