"""The stages of `benchmarks.visit`, each a module with a function `run(visit, note)`."""
