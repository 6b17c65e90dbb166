"""A web page that classifies photos: a model file, its sidecar, LiteRT.js, `classifier.js` and `index.html`."""

from edge_cv.deploy.web.export import export, sources

__all__ = ["export", "sources"]
