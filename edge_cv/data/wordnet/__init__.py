"""ImageNet's classes in WordNet's hierarchy."""
