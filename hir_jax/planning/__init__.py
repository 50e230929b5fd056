"""Whether a run fits devices that are not here, by compiling for them."""
