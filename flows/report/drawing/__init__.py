"""Charts and tables of the pages, without any knowledge of a run's stages."""
