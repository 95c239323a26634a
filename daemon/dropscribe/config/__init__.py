"""Reads YAML into one frozen Config, or reports all problems at once with their places.

``load.py`` reads it; ``model.py`` defines it, each key once (``keys.py``).
"""
