"""Ways through a space: `evolution` visits a part of it, and all of it where it is small."""
