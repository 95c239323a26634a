"""YAML 1.2 text → plain data that knows where each value was written."""
