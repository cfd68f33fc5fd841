"""Anthropic's Messages API, spoken with clients and with engines."""
