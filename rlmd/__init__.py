"""A Recursive Language Model daemon: questions over texts of any size, answered with citations."""

__version__ = "0.1.0"
