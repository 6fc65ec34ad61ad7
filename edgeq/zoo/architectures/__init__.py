"""The networks, one family a file, each written from its paper as a plain torch module."""
