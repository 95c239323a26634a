"""The one place that builds objects and joins them."""
