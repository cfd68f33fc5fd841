"""OpenAI's Responses API, spoken with clients: without a memory, each request says all."""
