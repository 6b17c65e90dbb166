"""What a caller hands over, opened as a `Source`."""
