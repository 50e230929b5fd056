"""T5: its shape, its layers, the functions over them, and its files."""
