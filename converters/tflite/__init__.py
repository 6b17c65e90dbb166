"""Reading, editing and running TFLite files."""
