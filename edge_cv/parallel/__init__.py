"""Process pools, thread pools and Ray clusters."""
