"""Real parts to try things on: engines, an emulated link, load, the demo."""
