"""One file a dialect: how each engine is called, read and probed. Chooses nothing."""
