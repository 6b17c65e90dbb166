"""A page that classifies photos in a browser: an artifact, its sidecar, LiteRT.js and a module of our own."""

from edge_cv.deploy.web.export import export, sources

__all__ = ["export", "sources"]
