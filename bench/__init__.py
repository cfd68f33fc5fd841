"""Benchmarks: each says what it measures, and on what."""
