"""The OpenAI-compatible service: accepts, decides, drives, replies."""
