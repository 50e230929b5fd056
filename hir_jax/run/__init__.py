"""One run: its settings, what they ask for made ready, its files, and the loop."""
