"""Two to six runs side by side: a page, and a table for the terminal."""
