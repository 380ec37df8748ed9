"""Fast CPU implementations of the steps around attention; each module also has the plain reference implementation."""
