"""How far apart ImageNet's classes are in WordNet."""
