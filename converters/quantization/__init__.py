"""From a float TFLite graph to integer ones."""
