"""The seam to the vendors, and one file for each of them."""
