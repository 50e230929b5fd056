"""BIG-bench (arXiv 2206.04615): the twelve tasks, through a TensorFlow Datasets builder."""
