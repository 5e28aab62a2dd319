"""Take a trained classifier and a budget; give back a small student that ships."""
