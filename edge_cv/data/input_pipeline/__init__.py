"""Training and evaluation batches: order, loading, augmentation and the backends' pipelines."""
