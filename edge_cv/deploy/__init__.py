"""Packages a model file for its target device: device rules, C array, web page, Android app."""
