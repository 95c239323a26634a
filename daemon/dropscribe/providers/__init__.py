"""The interface of providers, and one file for each vendor."""
