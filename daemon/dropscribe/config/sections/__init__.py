"""The sections of the config that have more to them than plain keys."""
