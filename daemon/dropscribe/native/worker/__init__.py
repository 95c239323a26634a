"""Code of worker processes: native libraries behind a sandbox. No other package imports it."""
