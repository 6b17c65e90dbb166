"""The layouts of labelled images: one file a layout, with a function from a path to a `Layout` or None."""
