"""Read-only views of files and queue, for commands and for the page."""
