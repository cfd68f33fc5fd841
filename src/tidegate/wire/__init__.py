"""Bytes become types here, once, and types become bytes again. No I/O."""
