"""Graph to file formats."""
