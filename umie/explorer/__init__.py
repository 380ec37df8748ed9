"""A local web page to try a saved variant by hand; see ``umie explore``."""

from umie.explorer.examples import Example, read_examples
from umie.explorer.explorer import Explorer, Form, Shown, Upload
from umie.explorer.variant import Answer, LoadedVariant

__all__ = ["Answer", "Example", "Explorer", "Form", "LoadedVariant", "Shown", "Upload", "read_examples"]
