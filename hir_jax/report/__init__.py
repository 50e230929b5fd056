"""One page for people to look into runs: what a workdir holds, gathered, drawn and put together."""
