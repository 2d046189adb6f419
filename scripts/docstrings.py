"""What the documentation site makes of docstrings before they are read as Markdown."""

import re

from griffe import Extension, Object

_CODE = re.compile(r"(`[^`]*`)")


class Shapes(Extension):
    """Keeps the star of shapes such as (*batch, n, n), which Markdown takes for emphasis."""

    def on_instance(self, *, obj: Object, **_: object) -> None:
        """Escapes stars outside of code in the docstring of every object."""
        if obj.docstring is None:
            return
        parts = _CODE.split(obj.docstring.value)
        # Every second part is code.
        parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
        obj.docstring.value = "".join(parts)
