"""YAML → one frozen Config, or every problem at once with its place.

``load.py`` reads it; ``model.py`` defines it, each key once (``keys.py``). Nothing is imported here, so that
a module that needs only the types does not load PyYAML.
"""
