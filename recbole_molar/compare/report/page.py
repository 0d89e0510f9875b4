"""`report.html`: gathers what the page shows, draws it, and keeps the file below its bound."""

from pathlib import Path

from markupsafe import Markup

from recbole_molar.checkpoint import read_json, write_text
from recbole_molar.compare import tables
from recbole_molar.compare.report import curves
from recbole_molar.compare.report.alignment import before_and_after
from recbole_molar.compare.report.catalogue import Catalogue
from recbole_molar.compare.report.chart import COLOURS, cloud
from recbole_molar.compare.report.embeddings import MolarRun, item_embeddings
from recbole_molar.compare.report.item_map import agreement, chosen_items, colourings, layout
from recbole_molar.compare.report.posters import LARGE, SMALL, gather
from recbole_molar.compare.report.rankings import user_panels
from recbole_molar.compare.report.search import search_panels
from recbole_molar.compare.report.template import render
from recbole_molar.run_folder import RESULT

MOST_BYTES = 8_000_000
MOST_MAPS = 2  # models whose items are mapped


def write_report(found, path, most_bytes=MOST_BYTES):
    """Write the page.

    Args:
        found (dict): of `comparison.examine`; path (Path): of the file; most_bytes (int): its size at most, by leaving pictures out.

    Returns:
        list of str: what is left out, and why.
    """
    folders, left_out = [Path(model["folders"][0]) for model in found["models"]], []
    catalogue = Catalogue(folders, found.get("data_path"))
    molars = _molar_runs(found, left_out)
    learning = curves.read_curves(found)
    users = user_panels(found, catalogue)
    ways, rows = _maps(found, catalogue, molars, left_out)
    content = {
        "found": found, "headline": headline(found), "tables": dict(_tables(found)), "notes": tables.notes(found), "colours": COLOURS,
        "at_k": curves.metric_at_k(found), "validation": curves.validation_charts(found, learning), "losses": curves.loss_charts(learning),
        "differences": curves.difference_charts(found), "segments": curves.segment_charts(found), "cost": curves.cost_charts(found), "users": users,
        "searches": search_panels(found),
        "ways": ways, "mapped": len(rows), "n_items": len(catalogue.items) - 1,
        "alignment": [{**one, "svg": _alignment_cloud(one)} for one in before_and_after(found, molars)], "left_out": left_out,
    }
    wanted = {item: (catalogue.picture(item), LARGE) for item in _items_of(users)}
    wanted |= {item: (catalogue.picture(item), SMALL) for item in catalogue.items[rows].tolist() if item not in wanted}
    room = most_bytes - len(render("page.html", {**content, "posters": {}}).encode()) - 1000
    posters, omitted = gather(wanted, room)
    if omitted:
        left_out.append(f"{omitted:,} pictures, to keep the file below {most_bytes / 1e6:g} MB; their items are shown by title.")
    page = render("page.html", {**content, "posters": posters})
    write_text(path, page)
    return left_out


def headline(found):
    """The result in one sentence or two."""
    metric = found["valid_metric"]
    models = sorted(found["models"], key=lambda model: -model["test"][metric]["mean"])
    best, name = models[0], _pretty(metric)
    text = f"{best['label']} has the highest {name}, {best['test'][metric]['mean']:.4f}."
    others = [one for one in found["differences"] if one["metric"] == metric]
    if len(models) < 2 or not others:
        return text
    worth = next((one for one in others if one["model"] == best["label"]), None) or next(one for one in others if one["model"] == models[1]["label"])
    word = "above" if worth["mean"] > 0 else "below"
    chance = "more than chance explains" if worth["p_holm"] < tables.SIGNIFICANT else "which chance may explain"
    single = any(len(model["seeds"]) == 1 for model in models if model["label"] in (worth["model"], found["reference"]))
    seeds = " One seed is not enough to tell how much training itself varies." if single else ""
    return (
        f"{text} {worth['model']} is {abs(worth['mean']):.4f} ({abs(worth['relative']):.1%}) {word} {found['reference']}, {chance} "
        f"(95% interval {worth['low']:+.4f} to {worth['high']:+.4f}, p = {worth['p_holm']:.2g}).{seeds}"
    )


def _pretty(metric):
    name, at, k = metric.partition("@")
    return (name.upper() if name in ("ndcg", "mrr", "map") else name.capitalize()) + at + k


def _tables(found):
    """Title -> rows, with best and second as markup."""
    return tables.sections(found, bold=Markup("<b>{}</b>"), underlined=Markup("<u>{}</u>"))


def _molar_runs(found, left_out):
    """Label -> MolarRun of the first seed, of each model that is one and whose parts are on disk."""
    runs = {}
    for model in found["models"]:
        folder = Path(model["folders"][0])
        if read_json(folder / RESULT)["model"] != "Molar":
            continue
        try:
            runs[model["label"]] = MolarRun(folder, found.get("data_path"))
        except ValueError as error:
            left_out.append(f"Embeddings of {model['label']}: {error}")
    return runs


def _maps(found, catalogue, molars, left_out):
    """Maps of the items: a list of colourings, each with `maps` (`label`, `svg`, `agreement`, `chance`), and the rows of the items on them."""
    rows, maps, first = chosen_items(catalogue.popularity), {}, next(iter(molars), None)
    order = sorted(found["models"], key=lambda model: (model["label"] != first, model["label"] in molars))  # a Molar, then models of another kind
    for model in order if len(rows) > 2 else []:
        vectors = item_embeddings(Path(model["folders"][0]), len(catalogue.items), molars.get(model["label"])) if len(maps) < MOST_MAPS else None
        if vectors is not None:
            maps[model["label"]] = (vectors[rows], layout(vectors[rows]))
    if not maps:
        left_out.append("The map of the items: no model keeps item embeddings that can be read.")
        return [], rows[:0]
    return [{**way, "maps": [_one_map(catalogue, rows, label, *some, way) for label, some in maps.items()]} for way in colourings(catalogue, rows)], rows


def _one_map(catalogue, rows, label, vectors, places, way):
    share, chance = agreement(vectors, way["of"])
    return {"label": label, "svg": _map_cloud(catalogue, rows, places, way), "agreement": share, "chance": chance}


def _map_cloud(catalogue, rows, places, way):
    points = []
    for (x, y), row, group in zip(places, rows.tolist(), way["of"].tolist()):
        item, other = str(catalogue.items[row]), not way["ordered"] and way["groups"][group] == "other"
        colour = "other" if other else f"o{group}" if way["ordered"] else f"g{group}"
        tip = f"{catalogue.title(item)} · {way['name']}: {way['groups'][group]}"
        points.append((x, y, {"class_": f"item {colour}", "data_item": item, "data_tip": tip}))
    return cloud(points)


def _alignment_cloud(panel):
    """E_id as rings, E_con as dots, a line for each user."""
    colour = f"m{panel['colour'] % COLOURS}"
    links = [(*one, *other, f"link {colour}") for one, other in zip(panel["id"], panel["content"])]
    rings = [(*one, {"class_": "ring", "r": 4}) for one in panel["id"]]
    return cloud(rings + [(*one, {"class_": f"dot {colour}", "r": 4}) for one in panel["content"]], links)


def _items_of(users):
    """Ids of all items in the users' panels, each once."""
    shown = [item for user in users for item in [*user["history"], user["target"], *(item for model in user["models"] for item in model["items"])]]
    return dict.fromkeys(item["id"] for item in shown)
