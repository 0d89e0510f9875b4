"""Small raw data sets in the layouts as published, and what reads the converted files back."""

import csv
import gzip
import json
import re
import zipfile

USERS, ITEMS = 12, 6


def interactions():
    """(user, item, rating, time) with user and item from 1: every user has five, in a chain; times in seconds."""
    return [(user, (user + step) % ITEMS + 1, 1 + (user + step) % 5, 978300000 + 1000 * user + step) for user in range(1, USERS + 1) for step in range(5)]


TITLES = {
    1: "Toy Story (1995)", 2: "Matrix, The (1999)", 3: "City of Lost Children, The (Cité des enfants perdus, La) (1995)", 4: "Avventura, L' (1960)",
    5: "American President, The (a.k.a. President, The) (1995)", 6: "Amélie \"Poulain\", l'été (2001)",
}  # fmt: skip
GENRES = {1: ["Animation", "Children's", "Comedy"], 2: ["Action"], 3: ["Sci-Fi"], 4: ["Drama"], 5: ["Comedy", "Drama"], 6: []}


EXTRA = {  # what else lies in a release; never read
    "ml-100k": ["README", "allbut.pl", "mku.sh", "u.info", "u.occupation", "u.user", "u1.base", "u1.test", "ua.base", "ua.test"],
    "ml-1m": ["README"], "ml-10m": ["README.html", "allbut.pl", "split_ratings.sh", "tags.dat"],
    "ml-20m": ["README.txt", "genome-scores.csv", "genome-tags.csv"], "ml-25m": ["README.txt", "genome-scores.csv", "genome-tags.csv"],
    "ml-32m": ["README.txt", "checksums.txt"], "ml-latest": ["README.txt", "genome-scores.csv", "genome-tags.csv"], "ml-latest-small": ["README.txt"],
}  # fmt: skip


def movielens(folder, release):
    """Write a release below `folder`, in a folder named as published (that of ml-10m.zip is ml-10M100K); returns that folder."""
    root = folder / ("ml-10M100K" if release == "ml-10m" else release)
    root.mkdir(parents=True)
    for name in EXTRA[release]:
        (root / name).write_bytes(b"not read \xe9\n")
    if release == "ml-100k":
        (root / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in interactions()))
        names = ["unknown", "Action", "Animation", "Children's", "Comedy", "Drama", "Sci-Fi"]
        (root / "u.genre").write_text("".join(f"{name}|{place}\n" for place, name in enumerate(names)) + "\n")
        flags = {item: "|".join(str(int(name in GENRES[item] or (not GENRES[item] and name == "unknown"))) for name in names) for item in TITLES}
        rows = [f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?{item}|{flags[item]}\n" for item, title in TITLES.items()]
        rows.append(f"267|unknown||||1{'|0' * (len(names) - 1)}\n")  # as published: a film of which nothing is known
        (root / "u.item").write_bytes("".join(rows).encode("latin-1"))
    elif release in ("ml-1m", "ml-10m"):
        number = "{}".format if release == "ml-1m" else "{:g}".format
        (root / "ratings.dat").write_text("".join(f"{u}::{i}::{number(stars(release, r))}::{t}\n" for u, i, r, t in interactions()))
        rows = "".join(f"{item}::{title}::{'|'.join(GENRES[item]) or '(no genres listed)'}\n" for item, title in TITLES.items())
        (root / "movies.dat").write_bytes(rows.encode("latin-1" if release == "ml-1m" else "utf-8"))
        if release == "ml-1m":
            (root / "users.dat").write_text("1::F::1::10::48067\n")
    else:
        end = "\r\n" if release in ("ml-20m", "ml-32m") else "\n"  # either is found in published files
        rows = [(u, i, f"{stars(release, r):.1f}", t) for u, i, r, t in interactions()]
        write_csv(root / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], rows, end)
        rows = [(item, title, "|".join(GENRES[item]) or "(no genres listed)") for item, title in TITLES.items()]
        write_csv(root / "movies.csv", ["movieId", "title", "genres"], rows, end)
        write_csv(root / "links.csv", ["movieId", "imdbId", "tmdbId"], [(item, f"011470{item}", "" if item == 4 else 860 + item) for item in TITLES], end)
        write_csv(root / "tags.csv", ["userId", "movieId", "tag", "timestamp"], [(1, 1, "pixar", 1)], end)
    return root


def stars(release, rating):
    """Ratings of 1 to 5; from ml-10m on, half stars too."""
    return rating if release in ("ml-100k", "ml-1m") else rating - 0.5


def write_csv(path, header, rows, end="\n"):
    """A CSV file, quoted where needed."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=end)
        writer.writerow(header)
        writer.writerows(rows)


def zipped(root, name=None):
    """The folder as a zip with the folder inside, as GroupLens publishes it."""
    path = root.with_name(f"{name or root.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.iterdir()):
            archive.write(file, f"{root.name}/{file.name}")
    return path


HOSTILE = "A \"quote\", tab\there,\nnew line\r\nbackslash \\ and \\n as two characters; 日本語, עברית, 🎬👩‍👩‍👧 | ; :: <b>&amp;\u2028end"


def amazon(folder, release, metadata=True):
    """Write reviews and metadata of 2014, 2018 or 2023 into `folder`; item 1 carries :data:`HOSTILE` as its description."""
    folder.mkdir(parents=True, exist_ok=True)
    reviews, items = AMAZON[release]()
    name = {"2014": ("reviews_Toys_5.json.gz", "meta_Toys.json.gz"), "2018": ("Toys_5.json.gz", "meta_Toys.json.gz"), "2023": ("Toys.jsonl", "meta_Toys.jsonl")}
    reviews_name, items_name = name[release]
    write_lines(folder / reviews_name, [json.dumps(row) for row in reviews])
    if metadata:
        write_lines(folder / items_name, [repr(row) if release == "2014" else json.dumps(row) for row in items])
    return folder


def write_lines(path, lines):
    """Lines, compressed where the name says so."""
    data = ("\n".join(lines) + "\n").encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _asin(item):
    return f"B00000000{item}"


def _amazon_2014():
    reviews = [{"reviewerID": f"A{u}", "asin": _asin(i), "reviewerName": "J. \"X\"", "helpful": [2, 3], "reviewText": "Good 'asin': 'B0'", "overall": float(r),
                "summary": "ok", "unixReviewTime": t, "reviewTime": "01 1, 2001"} for u, i, r, t in interactions()]  # fmt: skip
    items = [{"asin": _asin(i), "title": f"Product {i}'s \"name\"", "price": 3.17,
              "imUrl": f"http://ecx.images-amazon.com/images/I/{i}.jpg",
              "related": {"also_bought": [_asin(2), _asin(3)]}, "salesRank": {"Toys & Games": 211836}, "brand": "Coxlures",
              "categories": [["Toys"], ["Toys", "Dress Up & Pretend Play"]], "description": HOSTILE if i == 1 else f"About {i}"}
             for i in range(1, ITEMS + 1)]  # fmt: skip
    return reviews, items


def _amazon_2018():
    reviews = [{"overall": float(r), "vote": "5", "verified": True, "reviewTime": "01 1, 2001", "reviewerID": f"A{u}", "asin": _asin(i),
                "style": {"Size:": " Large"}, "reviewerName": "x", "reviewText": "y", "summary": "z", "unixReviewTime": t,
                **({"image": ["https://images-na.ssl-images-amazon.com/images/I/buyer._SY88.jpg"]} if u == 1 else {})}
               for u, i, r, t in interactions()]  # fmt: skip
    items = [{"asin": _asin(i), "title": f"Product {i}" if i != 3 else "var aPageStart = (new Date()).getTime();", "feature": ["Cotton", "Machine wash"],
              "description": [HOSTILE, "Second."] if i == 1 else [], "price": "$7.99 - $8.52" if i != 2 else ".a-box-inner{background-color:#fff}#x",
              "imageURL": [f"https://images-na.ssl-images-amazon.com/images/I/{i}._US40_.jpg"],
              "imageURLHighRes": [f"https://images-na.ssl-images-amazon.com/images/I/{i}.jpg"] if i != 4 else [],
              "brand": "Coxlures", "category": ["Toys", "Dolls"], "main_cat": "Toys", "also_buy": [_asin(3)], "also_view": [_asin(2)],
              "rank": [">#1 in Toys"] if i == 1 else "1 in Toys (", "tech1": '<table id="x">\n<tr><td>1</td></tr></table>', "tech2": "", "fit": "",
              "details": {"\n    Product Dimensions: \n    ": "1 x 2", "ASIN: ": _asin(i)}, "similar_item": "", "date": ""}
             for i in range(1, ITEMS + 1)]  # fmt: skip
    return reviews, items


def _amazon_2023():
    reviews = [{"rating": float(r), "title": "t", "text": "x", "images": [], "asin": f"V{i}", "parent_asin": _asin(i), "user_id": f"AE{u}",
                "timestamp": t * 1000 + 123, "helpful_vote": 0, "verified_purchase": True} for u, i, r, t in interactions()]  # fmt: skip
    items = [{"main_category": "Toys & Games", "title": f"Product {i}", "average_rating": 4.8, "rating_number": 10, "features": ["Soft", "Washable"],
              "description": [HOSTILE] if i == 1 else [], "price": 8.98 if i != 2 else None,
              "images": [{"thumb": "https://m.media-amazon.com/t2.jpg", "large": "https://m.media-amazon.com/l2.jpg", "variant": "PT01", "hi_res": None},
                         {"thumb": "https://m.media-amazon.com/t.jpg", "large": "https://m.media-amazon.com/l.jpg", "variant": "MAIN",
                          "hi_res": f"https://m.media-amazon.com/{i}.jpg" if i != 4 else None}],
              "videos": [{"title": "x", "url": "https://www.amazon.com/vdp/1", "user_id": ""}], "store": "Coxlures",
              "categories": ["Toys & Games", "Dolls"], "details": {"Brand": "x", "Item model number": "asin"}, "parent_asin": _asin(i),
              "bought_together": None} for i in range(1, ITEMS + 1)]  # fmt: skip
    return reviews, items


AMAZON = {"2014": _amazon_2014, "2018": _amazon_2018, "2023": _amazon_2023}


def read_back(folder):
    """(rows of `.inter` as dicts, items by id as dicts of decoded cells, lines of dataset.yaml as text)."""
    inter = _rows(folder / f"{folder.name}.inter")
    item_file = folder / f"{folder.name}.item"
    rows = _rows(item_file) if item_file.exists() else []
    items = {row.pop("item_id"): {name: unescape(cell) for name, cell in row.items()} for row in rows}
    return inter, items, (folder / "dataset.yaml").read_text(encoding="utf-8")


def _rows(path):
    header, *rows = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    names = [name.rpartition(":")[0] for name in header.split("\t")]
    return [dict(zip(names, row.split("\t"), strict=True)) for row in rows]


def unescape(cell):
    """The inverse of the writer's escapes."""
    return re.sub(r"\\(.)", lambda match: {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[match[1]], cell)
