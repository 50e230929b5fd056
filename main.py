"""hir_jax from a checkout; `hir-jax` is the same, installed. See `hir_jax/cli.py`."""

from hir_jax import cli

if __name__ == "__main__":
    cli.start()
