"""Amazon reviews with product metadata, releases of 2014, 2018 and 2023: local JSON lines, plain or .gz; also the ratings of 2023 as CSV.

Layouts as described by McAuley Lab (jmcauley.ucsd.edu/data/amazon, nijianmo.github.io/amazon, amazon-reviews-2023.github.io). The metadata
of 2014 are Python literals instead of JSON; they are parsed, never evaluated. In 2023, items are told apart by `parent_asin`, and the ratings
are published as CSV too (`0core/rating_only`, `5core/rating_only`): one of those in the place of the reviews is enough.
"""

import re
from pathlib import Path

from dataset_converters import loose_json
from dataset_converters.atomic import AtomicFolder, add_output_arguments
from dataset_converters.columns import check_ids, to_numbers
from dataset_converters.files import Plain, json_rows, lines, read_header, table_chunks
from dataset_converters.interactions import InteractionReader, add_filter_arguments, id_text, safe_id
from dataset_converters.item_files import cell_text, ending

LAYOUTS = {  # release: fields of user, item, rating, time, and milliseconds or seconds
    "2023": ("user_id", "parent_asin", "rating", "timestamp", 1000),
    "2014 or 2018": ("reviewerID", "asin", "overall", "unixReviewTime", 1),
}
COLUMNS = ["title", "brand", "category", "price", "features", "description", "image_url"]
ROWS = 200_000
ID = re.compile(r"""['"](?:parent_)?asin['"]\s*:\s*u?['"]([^'"\\]+)['"]""")
PRICE = re.compile(r"(?:from )?\$?\s*\d[\d,.]*(?:\s*-\s*\$?\s*\d[\d,.]*)?")


def add_arguments(parser):
    parser.add_argument("--input-path", required=True, metavar="PATH", help="folder with the reviews and, named meta…, the metadata; or a file of reviews")
    parser.add_argument("--metadata", nargs="+", metavar="FILE", help="files of metadata, where they are not in that folder")
    add_output_arguments(parser)
    add_filter_arguments(parser)


def run(arguments):
    """Convert; returns the summary.

    Raises:
        ValueError: files missing or broken, an unknown layout, no interaction left.
    """
    reviews, metadata = _find(arguments.input_path, arguments.metadata)
    dataset = arguments.dataset or "amazon-" + re.sub(r"[^a-z0-9]+", "-", _stem(reviews).lower()).strip("-")
    with AtomicFolder(arguments.output_path, dataset, arguments.overwrite) as folder:
        reader = InteractionReader()
        _read_reviews(reviews, reader)
        interactions = reader.finish(reviews).filter(arguments.min_rating, arguments.drop_duplicates, arguments.k_core)
        folder.write_interactions(interactions)
        if metadata:
            folder.write_items(COLUMNS, _items(metadata, interactions.item_set()))
    return folder.summary()


def _find(path, metadata):
    """(file of reviews, files of metadata)."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    if path.is_file():
        return Plain(path), list(map(Plain, metadata or ()))
    files = sorted(file for file in path.iterdir() if ending(file) in (".json", ".jsonl", ".csv"))
    reviews = [file for file in files if not file.name.lower().startswith("meta")]
    reviews = [file for file in reviews if ending(file) != ".csv"] or reviews  # the ratings in a CSV are those of the reviews beside it
    if not reviews:
        raise ValueError(f"{path}: no reviews there (.json, .jsonl or .csv, also .gz).")
    if len(reviews) > 1:
        raise ValueError(f"{path}: several files of reviews ({', '.join(file.name for file in reviews[:6])}). Give one as --input-path, with --metadata.")
    found = metadata or [file for file in files if file.name.lower().startswith("meta")]
    return Plain(reviews[0]), list(map(Plain, found))


def _stem(file):
    """Clothing_Shoes_and_Jewelry for `reviews_Clothing_Shoes_and_Jewelry_5.json.gz`."""
    name = Path(str(file)).name
    return re.sub(r"^reviews?_|(\.jsonl?|\.csv)?(\.gz)?$", "", name, flags=re.I)


def _read_reviews(file, reader):
    """Add one file of reviews to `reader`, by parts."""
    if ending(file.path) == ".csv":
        _read_ratings(file, reader)
        return
    layout, rows, first = None, [], 1
    for number, row in json_rows(file, loose_json.parse):
        if layout is None:
            layout = next((fields for fields in LAYOUTS.values() if set(fields[:4]) <= set(row)), None)
            if layout is None:
                valid = "; ".join(f"{', '.join(fields[:4])} ({name})" for name, fields in LAYOUTS.items())
                raise ValueError(f"{file}, line {number}: unknown layout. Valid fields: {valid}. Found: {', '.join(map(str, row))[:200]}.")
            user, item, rating, time, _ = layout
        rows.append((row.get(user), row.get(item), row.get(rating), row.get(time)))
        if len(rows) == ROWS:
            _add(reader, rows, layout, file, first)
            rows, first = [], number + 1
    if rows:
        _add(reader, rows, layout, file, first)


def _read_ratings(file, reader):
    """Add a CSV of 2023: user_id,parent_asin,rating,timestamp, and in some a history that repeats earlier rows."""
    layout = LAYOUTS["2023"]
    if missing := [name for name in layout[:4] if name not in read_header(file, ",")]:
        raise ValueError(
            f"{file}: has no column {', '.join(missing)}; of Amazon's CSV files those of 2023 are read, user_id,parent_asin,rating,timestamp. "
            f"Give other tables to the converter tabular, with a header."
        )
    for first, chunk in table_chunks(file, ",", list(layout[:4])):
        times = to_numbers(chunk[layout[3]], file, first, layout[3]) / layout[4]
        reader.add(chunk[layout[0]], chunk[layout[1]], times, to_numbers(chunk[layout[2]], file, first, layout[2]))


def _add(reader, rows, layout, file, first):
    users, items, ratings, times = zip(*rows)
    check_ids(users, file, first, layout[0])
    check_ids(items, file, first, layout[1])
    times = to_numbers(times, file, first, layout[3]) / layout[4]
    reader.add(users, items, times, to_numbers(ratings, file, first, layout[2]))


def _items(files, wanted):
    """Yield (id, cells) of the metadata; a line that names no wanted item is not parsed and has no cells."""
    for file in files:
        for number, line in lines(file):
            if not line.strip():
                continue
            named = ID.findall(line)
            if named and line.rstrip().endswith("}") and not any(safe_id(id_text(name)) in wanted for name in named):
                yield named[0], []
                continue
            try:
                row = loose_json.parse(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}, line {number}: not a JSON object ({error}). Is the file cut off?") from error
            if not isinstance(row, dict) or not {"asin", "parent_asin"} & set(row):
                raise ValueError(f"{file}, line {number}: metadata without asin or parent_asin. Found: {str(row)[:100]}.")
            yield row.get("parent_asin") or row.get("asin"), item_cells(row)


def item_cells(row):
    """Cells of :data:`COLUMNS` from a row of metadata of any release."""
    title = cell_text(row.get("title"))
    price = cell_text(row.get("price")).strip()
    category = row.get("category") or row.get("categories") or row.get("main_category")
    if isinstance(category, list) and category and isinstance(category[0], list):  # 2014: several paths
        category = max(category, key=len)
    return [
        "" if "getTime" in title else title,  # 2018: a script in place of some titles, as that release's own notebook notes
        cell_text(row.get("brand") or row.get("store")),
        " > ".join(filter(None, map(cell_text, category))) if isinstance(category, list) else cell_text(category),
        price if PRICE.fullmatch(price) else "",  # 2018: style sheets in place of some prices
        cell_text(row.get("features") or row.get("feature")),
        cell_text(row.get("description")),
        image_url(row),
    ]


def image_url(row):
    """The main picture's address, the largest there is: `imUrl` (2014), `imageURLHighRes` or `image` (2018), `images` (2023)."""
    images = row.get("images")
    if isinstance(images, dict):  # lists by size, as in the Parquet edition of 2023
        images = [dict(zip(images, values)) for values in zip(*images.values())]
    if isinstance(images, list) and all(isinstance(image, dict) for image in images):
        images = sorted(images, key=lambda image: image.get("variant") != "MAIN")
        for size in ("hi_res", "large", "thumb"):
            for image in images[:1]:
                if image.get(size):
                    return str(image[size])
    for name in ("imageURLHighRes", "imageURL", "image", "imUrl"):
        value = row.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str) and value.startswith("http"):
            return value
    return ""
