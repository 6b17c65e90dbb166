"""One file for each layout of labelled images."""
