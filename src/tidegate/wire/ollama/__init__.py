"""Ollama's API, spoken with clients: chats, prompts, and the lists of models that its clients look up."""
