"""Language models of transformers: where they come from, their shapes, and their weights."""
