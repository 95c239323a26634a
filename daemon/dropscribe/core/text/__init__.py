"""Text from outside, and text for people."""
