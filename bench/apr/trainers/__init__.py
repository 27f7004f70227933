"""One module per model; each runs in an environment that has it, and trains it as its authors say."""
