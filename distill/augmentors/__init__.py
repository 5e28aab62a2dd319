"""Augmentors of the images for teacher and student: a file a family, and the policies that steer them."""
