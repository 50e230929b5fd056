"""The offline phase: loss terms, optimizer, step, and scores of given outputs."""
