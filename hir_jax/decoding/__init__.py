"""The online phase: from prompts to sampled outputs, on the device."""
