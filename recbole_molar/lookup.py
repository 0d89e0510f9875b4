"""Part name -> class: `Foo` is the class `Foo` in the one file of its folder that defines it; a dotted path is imported as is."""

import ast
import difflib
import importlib
from functools import lru_cache
from pathlib import Path

from recbole_molar.property_error import PropertyError

PACKAGE = Path(__file__).parent


def did_you_mean(name, valid):
    """`" Did you mean X?"` with the nearest of the valid names, upper and lower case alike; "" if none is near."""
    by_lower = {str(other).lower(): other for other in sorted(valid)}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""


@lru_cache
def available(kind):
    """Names of all parts of a kind.

    Args:
        kind (str): folder below `recbole_molar`, with dots: `model.user_encoder`.

    Returns:
        dict: class or factory name -> module path. Read from the sources, so nothing is imported.
    """
    found = {}
    for file in sorted((PACKAGE / kind.replace(".", "/")).glob("*.py")):
        if file.stem == "__init__":
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_part = isinstance(node, ast.ClassDef) and node.name.lower() == file.stem.replace("_", "").lower()
            if is_part:
                found[node.name] = f"recbole_molar.{kind}.{file.stem}"
    return found


def built_here(backbone):
    """Name of the class in `model/backbone/` that builds a backbone from the data's own text (for `compact` or `Compact`); None for published weights."""
    files = {name: path.rpartition(".")[2] for name, path in available("model.backbone").items() if name != "Pretrained"}
    return next((name for name, file in files.items() if backbone in (name, file)), None)


def find_class(name, kind, key=None):
    """The class of a part.

    Args:
        name (str): a name from :func:`available`, or a dotted path such as `my_pkg.my_mod.Foo`.
        kind (str): as in :func:`available`.
        key (str): the property that the user typed, for the error message.

    Raises:
        PropertyError: no such part; the message lists what there is.
    """
    parts, name = available(kind), str(name)  # whatever YAML made of it
    if name in parts:
        return getattr(importlib.import_module(parts[name]), name)
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two: `.Foo`, `..foo.Foo`
            raise PropertyError(key, f"{key or kind}={name}: cannot import it ({error}). Valid: {', '.join(parts)}, or a dotted path to a class.") from error
    raise PropertyError(key, f"{key or kind}={name}: no such part.{did_you_mean(name, parts)} Valid: {', '.join(parts)}, or a dotted path to a class.")
