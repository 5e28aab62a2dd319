"""Networks, their building blocks, and figures counted on them."""
