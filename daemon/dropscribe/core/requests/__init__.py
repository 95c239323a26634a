"""What a provider is asked to do with a recording."""
