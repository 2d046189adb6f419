"""What the documentation site makes of docstrings before they are read as Markdown."""

import re
from contextlib import suppress

from griffe import Alias, AliasResolutionError, CyclicAliasError, Extension, Module, Object

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


class Shadowed(Extension):
    """Shows the function `package.name` where a module of the package has that name too."""

    def on_package(self, *, pkg: Module, **_: object) -> None:
        """Puts the function in the module's place, when all that is found through it was found."""
        for member in pkg.members.values():
            if isinstance(member, Alias):
                with suppress(AliasResolutionError, CyclicAliasError):
                    member.resolve_target()
        for name in map(str, pkg.exports or ()):
            module = pkg.members.get(name)
            if module is not None and not module.is_alias and name in module.members:
                pkg.members[name] = Alias(name, module.members[name], parent=pkg)
