"""Parses YAML 1.2 into plain data with the position of each value."""
