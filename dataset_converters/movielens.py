"""MovieLens, every release: ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m, ml-latest, ml-latest-small; folder or zip as published.

Layouts as described in the README of each release on grouplens.org: `u.data` and `u.item` (100k), `ratings.dat` and `movies.dat`
(1m, 10m), `ratings.csv`, `movies.csv` and `links.csv` (all others).
"""

import codecs
import csv
import io
import re
from pathlib import Path

from dataset_converters.atomic import AtomicFolder, add_output_arguments
from dataset_converters.columns import to_numbers
from dataset_converters.files import broken_file, find_files, lines, table_chunks
from dataset_converters.interactions import InteractionReader, add_filter_arguments
from dataset_converters.item_files import ItemJoin

ARTICLES = (
    "The|A|An|La|Le|Les|L'|Il|Lo|Gli|I|Un|Une|Uno|Una|El|Los|Las|Der|Die|Das|Den|Det|De|Het|Ein|Eine|En|Ett|O|Os|As|Um|Uma|Els"
)
ARTICLE = re.compile(rf"^(?P<alias>a\.?k\.?a\.? )?(?P<rest>.+), (?P<article>{ARTICLES})$", re.I | re.S)
YEAR = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:\s*[-–]\s*(?:\d{4})?\s*)?\)\s*$", re.S)
CSV_FILES = ("ratings.csv", "movies.csv")
COLUMNS = ["movie_title", "release_year", "genre"]


def add_arguments(parser):
    parser.add_argument("--input-path", required=True, metavar="PATH", help="folder or zip of one release")
    add_output_arguments(parser)
    parser.add_argument("--item-files", nargs="+", default=[], metavar="FILE",
                        help="CSV, TSV or JSONL files with more about the movies (plots, posters), joined by movie id")  # fmt: skip
    add_filter_arguments(parser)


def run(arguments):
    """Convert; returns the summary.

    Raises:
        ValueError: unknown layout, a missing or broken file, a target that exists.
    """
    files = find_files(arguments.input_path, ("u.data", "ratings.dat", "ratings.csv"))
    release, ratings, movies = _layout(files, arguments.input_path)
    dataset = arguments.dataset or _name(arguments.input_path, release)
    with AtomicFolder(arguments.output_path, dataset, arguments.overwrite) as folder:
        interactions = ratings().filter(arguments.min_rating, arguments.drop_duplicates, arguments.k_core)
        folder.write_interactions(interactions)
        folder.write_items(*ItemJoin(arguments.item_files).join(*movies()))
    return folder.summary()


def _layout(files, path):
    """(name, function that reads the ratings, function that gives columns and rows of the movies)."""
    if {"u.data", "u.item", "u.genre"} <= set(files):
        return "ml-100k", lambda: _ratings(files["u.data"], "\t", range(4)), lambda: _movies_100k(files)
    if {"ratings.dat", "movies.dat"} <= set(files):
        # "::" is read as ":" with an empty column between two: pandas splits by one character ten times as fast.
        name = "ml-1m" if "users.dat" in files else "ml-10m"
        return name, lambda: _ratings(files["ratings.dat"], ":", (0, 2, 4, 6)), lambda: (COLUMNS, _movies_dat(files["movies.dat"]))
    if set(CSV_FILES) <= set(files):
        return "movielens", lambda: _ratings(files["ratings.csv"], ",", ("userId", "movieId", "rating", "timestamp")), lambda: _movies_csv(files)
    raise ValueError(
        f"{path}: not a release of MovieLens. Valid: u.data, u.item and u.genre (ml-100k); ratings.dat and movies.dat (ml-1m, ml-10m); "
        f"ratings.csv and movies.csv (the others). Found: {', '.join(sorted(files)[:8]) or 'nothing'}."
    )


def _name(path, release):
    """ml-25m for `…/ml-25m.zip` or `…/ml-25m/`; the layout's name where the path is called otherwise."""
    stem = re.sub(r"\.zip$", "", Path(path).resolve().name, flags=re.I).lower()
    if stem == "ml-10m100k":  # the folder inside ml-10m.zip
        return "ml-10m"
    return stem if re.fullmatch(r"ml-[a-z0-9-]+", stem) else release


def _ratings(file, separator, columns):
    """All ratings. `columns` are names, or places in a file without a header."""
    reader, named = InteractionReader(), isinstance(columns[0], str)
    names = None if named else [f"column {place}" for place in range(max(columns) + 1)]
    wanted = list(columns) if named else [names[place] for place in columns]
    for first, chunk in table_chunks(file, separator, wanted, names, quoted=named):
        users, items, ratings, times = (chunk[name] for name in wanted)
        ratings, times = to_numbers(ratings, file, first, "the rating"), to_numbers(times, file, first, "the timestamp")
        reader.add(users, items, times, ratings)
    return reader.finish(file)


def _encoding(file):
    """UTF-8 if it reads as such, else Latin-1: ml-100k and ml-1m were published in the latter."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with file.open() as stream:
        try:
            while part := stream.read(1 << 20):
                decode(part)
            decode(b"", final=True)
            return "utf-8-sig"
        except UnicodeDecodeError:
            return "latin-1"


def _movies_100k(files):
    """`u.item`: id|title|release date|video date|IMDb link|one 0 or 1 for each genre of `u.genre`."""
    genres = [line.rpartition("|")[0] for _, line in lines(files["u.genre"], "latin-1") if "|" in line]

    def rows():
        for number, line in lines(files["u.item"], _encoding(files["u.item"])):
            cells = line.split("|")
            if not line:
                continue
            if len(cells) != 5 + len(genres):
                raise ValueError(f"{files['u.item']}, line {number}: {len(cells)} columns, expected {5 + len(genres)} (5 and one for each genre).")
            title, year = split_title(cells[1])
            marked = [genre for genre, flag in zip(genres, cells[5:]) if flag == "1" and genre != "unknown"]
            yield cells[0], [title, year or cells[2][-4:], " ".join(marked), cells[4]]

    return [*COLUMNS, "imdb_url"], rows()


def _movies_dat(file):
    """`movies.dat`: id::title (year)::genre|genre."""
    for number, line in lines(file, _encoding(file)):
        if line:
            key, _, rest = line.partition("::")
            title, separator, genres = rest.rpartition("::")
            if not separator:
                raise ValueError(f"{file}, line {number}: {line[:60]!r} is not id::title::genres.")
            yield key, [*split_title(title), _genres(genres)]


def _movies_csv(files):
    """`movies.csv` with the columns of `links.csv`, where there is one."""
    links = {key: [imdb, tmdb] for key, imdb, tmdb in _csv_rows(files["links.csv"], 3)} if "links.csv" in files else None

    def rows():
        for key, title, genres in _csv_rows(files["movies.csv"], 3):
            yield key, [*split_title(title), _genres(genres), *([] if links is None else links.get(key, ["", ""]))]

    return [*COLUMNS, *(["imdb_id", "tmdb_id"] if links is not None else [])], rows()


def _csv_rows(file, width):
    with file.open() as stream, broken_file(file):
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline=""))
        next(reader, None)
        for row in reader:
            if len(row) != width:
                raise ValueError(f"{file}, line {reader.line_num}: {len(row)} columns, expected {width}.")
            yield row


def _genres(text):
    return "" if text == "(no genres listed)" else text.replace("|", " ")


def split_title(text):
    """(title, year): "Matrix, The (1999)" -> ("The Matrix", "1999"); a year range gives its first year, alternative titles stay."""
    match = YEAR.match(text)
    title, year = (match["title"], match["year"]) if match else (text.strip(), "")
    main, bracket, others = title.partition(" (")
    others = re.sub(r"\(([^()]*)\)", lambda group: f"({_move_article(group[1])})", bracket.lstrip() + others)
    return " ".join(filter(None, [_move_article(main), others])), year


def _move_article(title):
    match = ARTICLE.match(title)
    if not match:
        return title
    article = match["article"]
    return f"{match['alias'] or ''}{article}{'' if article.endswith(chr(39)) else ' '}{match['rest']}"
