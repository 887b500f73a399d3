"""When things run: the method on one page, the study file and the command line."""
