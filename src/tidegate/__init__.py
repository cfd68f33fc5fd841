"""Tidegate: selective offloading for AI inference, request by request."""

__version__ = "0.1.0"
