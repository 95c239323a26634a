"""What runs in worker processes only: native libraries, behind a sandbox. No other room imports it."""
