"""The packages; everything else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["edge_cv*", "converters*"]), "edge_cv.recipes"],
    package_dir={"edge_cv.recipes": "recipes"},
)
