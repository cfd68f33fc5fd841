"""The configuration file becomes types here, once, with a path and a remedy in every error."""
