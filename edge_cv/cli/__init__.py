"""The `edge-cv` command line."""
