"""A page as text: our templates, style and script in one file that needs no network."""

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

HERE = Path(__file__).parent


def render(template, content):
    """The page as text. Everything in `content` that is not Markup is escaped; only our own script may run in the page.

    Args:
        template (str): file name; content (dict): its variables, with `posters` (item id -> JPEG in base64).
    """
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render({**content, "script": Markup(script), "script_hash": digest, "style": Markup(style)})
