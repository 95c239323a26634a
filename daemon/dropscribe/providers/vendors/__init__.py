"""One file for each vendor's API, and one for an API that the config describes."""
