"""Who runs a model: one small protocol, and one module a runtime."""
