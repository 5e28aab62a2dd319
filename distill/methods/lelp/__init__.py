"""LELP, its subclasses and head, and its control."""
