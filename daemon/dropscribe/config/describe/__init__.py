"""The JSON Schema and the commented example, made from the definitions of the keys."""
