"""YAML → frozen Config: every problem at once, each with its place.

``load.py`` is the door; ``model.py`` is what the daemon works with; ``keys.py`` is what may be written,
and the one source of the checks, the JSON Schema and the reference. Nothing is imported here, so that a
module which only wants the types does not load PyYAML.
"""
