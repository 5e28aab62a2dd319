"""A federation in Flower's processes: what its two apps read and write on their machines."""
