"""Target devices: the rules of their runtimes and compilers, and what a microcontroller needs."""
