"""CLIP encoders by open_clip."""
