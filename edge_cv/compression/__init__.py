"""Smaller models from trained ones: weights to zero, channels away, weights in clusters, training for int8.

Every function takes a Keras 3 model, ours or a stranger's, and gives one back; what needs Keras 2
(tensorflow-model-optimization) happens behind the bridge. Importing this loads no TensorFlow.
"""
