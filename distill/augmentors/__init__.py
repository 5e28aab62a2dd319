"""What changes images on their way to teacher and student: a file a family, and the policies that steer them."""
