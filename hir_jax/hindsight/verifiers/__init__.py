"""Verifiers, one kind of answer a file; none of them reads a part of an answer as the answer."""
