"""Teachers: built, loaded or trained."""
