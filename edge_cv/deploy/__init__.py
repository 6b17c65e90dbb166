"""The target device's file, and the forms in which it is delivered."""
