"""Ids: do those of `.inter`, `.item` and the pictures match."""

from collections import Counter
from pathlib import Path

from recbole_molar.data.item_content import EXTENSIONS, encoding_of
from recbole_molar.doctor.data_report import some


def id_report(config, raw):
    """Section "ids": what of each side is missing on the other, with a few examples.

    Args:
        config (Config): the run's. raw (DataFrame): of `read_inter`, before any filter.
    """
    folder = Path(config["data_path"])
    interacted, file = set(raw["item"].dropna()), folder / f"{config['dataset']}.item"
    report, listed = {"interactions": len(interacted)}, Counter()
    if file.is_file():
        listed = _listed_ids(file, config["field_separator"], config["ITEM_ID_FIELD"], encoding_of(file, config["encoding"]))
        report.update(
            item_file=len(listed), without_row=some(interacted - listed.keys()), without_interaction=some(listed.keys() - interacted),
            repeated=some(name for name, count in listed.items() if count > 1),
        )
    images = folder / str(config["item_image_dir"])
    if "image" in (config["item_modalities"] or []) and images.is_dir():
        stems = {path.stem for path in images.iterdir() if path.suffix.lower() in EXTENSIONS}
        report.update(pictures=len(stems), without_picture=some(interacted - stems), picture_of_no_item=some(stems - interacted - listed.keys()))
    return report


def _listed_ids(file, separator, id_field, encoding):
    """How often each id stands in the `.item` file. What is wrong with the file otherwise, a run's own reader says."""
    found = Counter()
    with open(file, encoding=encoding, errors="replace", newline="\n") as lines:
        columns = [name.rpartition(":")[0] or name for name in lines.readline().rstrip("\r\n").split(separator)]
        if id_field in columns:
            place = columns.index(id_field)
            for line in lines:
                cells = line.rstrip("\r\n").split(separator)
                if len(cells) > place and cells != [""]:
                    found[cells[place]] += 1
    return found
