"""People's labels for a run that asks for them: a page and a table out, a table back in."""
