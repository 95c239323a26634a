"""`type: http`: an API that the config describes."""
