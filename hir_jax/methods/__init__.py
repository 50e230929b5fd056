"""What is learned from samples: one file a method, and the frame that they share."""
