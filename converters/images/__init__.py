"""From an encoded photo to the pixels that a model takes."""
