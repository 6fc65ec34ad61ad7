"""Readers of models: what others wrote becomes a Graph."""
