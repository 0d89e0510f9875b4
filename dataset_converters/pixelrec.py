"""PixelRec (50K, 200K, 1M, 8M and whole): interactions, item_info and, with --covers, the cover pictures; local files as published.

Layout as in the data set's README (github.com/westlake-repl/PixelRec): CSV files with the columns `item_id,user_id,timestamp` and
`item_id,…,title,tag,description`, and pictures named `<item_id>.jpg`.
"""

import os
import re
import shutil
from pathlib import Path

from dataset_converters.atomic import PICTURES, AtomicFolder, add_output_arguments
from dataset_converters.columns import Times
from dataset_converters.files import Plain, progress, read_header, table_chunks
from dataset_converters.interactions import InteractionReader, add_filter_arguments, safe_id

INTERACTIONS = ("item_id", "user_id", "timestamp")
TEXTS = ("title", "title_en", "tag", "tag_en", "description", "description_en")


def add_arguments(parser):
    parser.add_argument("--input-path", required=True, metavar="PATH", help="folder with the CSV files (also in folders below), or the interactions' CSV")
    parser.add_argument("--item-info", metavar="FILE", help="CSV of the items, where it is not below --input-path")
    parser.add_argument("--covers", metavar="FOLDER", help="folder of <item_id>.jpg: linked (or copied) into images/")
    add_output_arguments(parser)
    add_filter_arguments(parser)


def run(arguments):
    """Convert; returns the summary.

    Raises:
        ValueError: files missing, more than one that fits, or broken.
    """
    interactions_file, item_file = _find(arguments.input_path, arguments.item_info)
    dataset = arguments.dataset or re.sub(r"[^\w.-]", "-", interactions_file.path.name.split(".")[0].lower(), flags=re.ASCII)
    covers = _covers(arguments.covers) if arguments.covers else {}
    with AtomicFolder(arguments.output_path, dataset, arguments.overwrite) as folder:
        reader, times = InteractionReader(), Times()
        for first, chunk in table_chunks(interactions_file, ",", list(INTERACTIONS)):
            reader.add(chunk["user_id"], chunk["item_id"], times(chunk["timestamp"], interactions_file, first, "timestamp"))
        interactions = reader.finish(interactions_file)
        folder.notes.append(times.scale(interactions.time))
        folder.write_interactions(interactions.filter(arguments.min_rating, arguments.drop_duplicates, arguments.k_core))
        if item_file:
            columns = [name for name in TEXTS if name in read_header(item_file, ",")]
            folder.write_items(columns, _items(item_file, columns))
        if arguments.covers:
            folder.notes.append(_link(covers, interactions.item_set(), folder.images, arguments.covers))
    return folder.summary()


def _find(path, item_info):
    """(interactions, items or None), told from their headers."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    candidates = [path] if path.is_file() else sorted([*path.glob("*.csv*"), *path.glob("*/*.csv*")])
    found = {True: [], False: []}
    for file in map(Plain, candidates):
        header = set(read_header(file, ","))
        if set(INTERACTIONS) <= header or "title" in header:
            found[set(INTERACTIONS) <= header].append(file)
    items = [Plain(item_info)] if item_info else found[False]
    if len(found[True]) != 1:
        listed = ", ".join(map(str, found[True])) or f"none among {[file.name for file in candidates][:8]}"
        raise ValueError(f"{path}: one CSV with the columns {','.join(INTERACTIONS)} is needed, found {listed}. Give that file as --input-path.")
    if len(items) > 1:
        raise ValueError(f"{path}: several files of items: {', '.join(map(str, items))}. Choose with --item-info.")
    if item_info and "item_id" not in read_header(items[0], ","):
        raise ValueError(f"{item_info}: has no column item_id.")
    return found[True][0], items[0] if items else None


def _items(file, columns):
    for _, chunk in table_chunks(file, ",", ["item_id", *columns]):
        yield from zip(chunk["item_id"], chunk[columns].to_numpy().tolist())


def _covers(folder):
    """Item id as written -> picture; a listing, so that no id is ever made into a path to read."""
    if not Path(folder).is_dir():
        raise ValueError(f"--covers={folder}: no such folder.")
    with os.scandir(folder) as entries:
        found = {safe_id(entry.name.rpartition(".")[0]): entry.path for entry in entries if entry.name.lower().endswith(PICTURES)}
    if not found:
        raise ValueError(f"--covers={folder}: holds no .jpg, .jpeg, .png or .webp.")
    return found


def _link(covers, items, images, folder):
    """Link the pictures of the items into `images`, or copy them where the file system cannot; returns a sentence for the summary."""
    linked = 0
    with progress(len(items), "link covers", "files") as bar:
        for key in sorted(items & set(covers)):
            target = images / (key + Path(covers[key]).suffix.lower())
            if target.exists():  # of another id, on a file system that takes A1 and a1 for one
                continue
            source = os.path.realpath(covers[key])
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
            linked += 1
            bar.update(1)
    if not linked:
        raise ValueError(f"--covers={folder}: no file there is named after an item of the interactions, for example {sorted(items)[0]}.jpg.")
    return f"{linked:,} items have a cover, {len(items) - linked:,} have none."
