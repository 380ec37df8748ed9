"""Everything that draws or prints a page."""
