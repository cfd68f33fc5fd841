"""Documentation that is generated, and what generates it."""
