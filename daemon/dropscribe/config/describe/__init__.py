"""What is made of the definitions of the keys: the JSON Schema and the commented example."""
