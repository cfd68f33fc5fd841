"""The process beside an engine that carries KV caches: what one llama.cpp has computed, another goes on with."""
