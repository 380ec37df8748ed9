"""Features that other programs wrote."""
