"""The stage that begins a run with what earlier ones found."""
