"""What a rule wants done with its recordings before a provider hears them; asked for, or never loaded."""
