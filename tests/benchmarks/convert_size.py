"""Time and peak memory of a conversion of Amazon clothing's size: 8.8 M reviews, 301 k items, 1.2 M users, generated.

    python tests/benchmarks/convert_size.py [--scale 0.02] [--layout 2014|2018|2023] [--folder FOLDER]

Limits asked for at full size: 10 minutes and 6 GiB on 2 cores. Generating the raw files (some 4 GB unpacked, 1 GB on the disk) is not counted.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
REVIEWS, ITEMS, USERS = 8_800_000, 301_000, 1_200_000
NAMES = {"2014": ("reviews_Clothing.json.gz", "meta_Clothing.json.gz"), "2018": ("Clothing.json.gz", "meta_Clothing.json.gz"),
         "2023": ("Clothing.jsonl.gz", "meta_Clothing.jsonl.gz")}  # fmt: skip
WORDS = "soft cotton dress blue classic fit women men leather running shoes waterproof jacket summer elegant \u00e9l\u00e9gant \"slim\" it's 日本".split()


def words(number, source):
    return " ".join(source.choices(WORDS, k=number))


def generate(folder, scale, layout):
    """Write reviews and metadata as published (gzip); popularity and activity are skewed, texts of the usual length."""
    n_items, n_users, draw, source = int(ITEMS * scale), int(USERS * scale), np.random.default_rng(0), random.Random(0)
    texts = [words(40, source) for _ in range(1000)]
    with compressed(folder / NAMES[layout][0]) as file:
        for start in range(0, int(REVIEWS * scale), 100_000):
            size = min(100_000, int(REVIEWS * scale) - start)
            items, users = (draw.random(size) ** 2.5 * n_items).astype(int), (draw.random(size) ** 1.5 * n_users).astype(int)
            times, ratings = draw.integers(1_000_000_000, 1_500_000_000, size), draw.integers(1, 6, size)
            file.writelines([review(*row, texts, layout) for row in zip(users.tolist(), items.tolist(), ratings.tolist(), times.tolist())])
    with compressed(folder / NAMES[layout][1]) as file:
        file.writelines(metadata(item, source, layout) for item in range(n_items))


def compressed(path):
    return gzip.open(path, "wt", compresslevel=1, encoding="utf-8")


def review(user, item, rating, when, texts, layout):
    text = texts[when % len(texts)]
    if layout == "2023":
        row = {"rating": float(rating), "title": "Good", "text": text, "images": [], "asin": f"V{item:09d}", "parent_asin": f"B{item:09d}",
               "user_id": f"AE{user:026d}", "timestamp": when * 1000 + 7, "helpful_vote": 0, "verified_purchase": True}  # fmt: skip
    else:
        row = {"reviewerID": f"A{user:013d}", "asin": f"B{item:09d}", "reviewerName": "Some One", "helpful": [0, 0], "reviewText": text,
               "overall": float(rating), "summary": "Good", "unixReviewTime": when, "reviewTime": "01 1, 2010"}  # fmt: skip
        if layout == "2018":
            row.update({"verified": True, "vote": "5", "style": {"Size:": " Large", "Color:": " Blue"}})
    return json.dumps(row) + "\n"


def metadata(item, source, layout):
    asin, title, url, others = f"B{item:09d}", words(10, source), f"images/I/{item}.jpg", [f"B{item + k:09d}" for k in range(60)]
    features, description = [words(10, source) for _ in range(5)], words(90, source)
    if layout == "2014":
        row = {"asin": asin, "title": title, "price": 9.99, "imUrl": f"http://ecx.images-amazon.com/{url}", "brand": "Brand",
               "related": {"also_bought": others}, "categories": [["Clothing", "Women"]], "description": description}  # fmt: skip
        return repr(row) + "\n"
    if layout == "2018":
        row = {"category": ["Clothing", "Women"], "tech1": "<table>" + 20 * "<tr><td>x</td></tr>", "description": [description], "fit": "", "title": title,
               "also_buy": others, "also_view": others, "tech2": "", "brand": "Brand", "feature": features, "rank": "1 in Clothing (", "main_cat": "Fashion",
               "details": {"ASIN: ": asin}, "similar_item": "", "date": "", "price": "$9.99", "asin": asin,
               "imageURL": [f"https://images-na.ssl-images-amazon.com/{url}"] * 4,
               "imageURLHighRes": [f"https://images-na.ssl-images-amazon.com/{url}"] * 4}  # fmt: skip
    else:
        picture = {size: f"https://m.media-amazon.com/{url}" for size in ("thumb", "large", "hi_res")}
        row = {"main_category": "AMAZON FASHION", "title": title, "average_rating": 4.1, "rating_number": 100, "features": features,
               "description": [description], "price": 9.99, "images": [{**picture, "variant": "MAIN"}] * 6, "videos": [], "store": "Brand",
               "categories": ["Clothing", "Women"], "details": {"Department": "womens"}, "parent_asin": asin, "bought_together": None}  # fmt: skip
    return json.dumps(row) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--layout", choices=list(NAMES), default="2014")
    parser.add_argument("--folder", help="where the files go (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        raw = Path(temporary) / "raw"
        raw.mkdir()
        generate(raw, arguments.scale, arguments.layout)
        start = time.perf_counter()
        words = ["amazon", "--input-path", raw, "--output-path", Path(temporary) / "out", "--dataset", "size"]
        subprocess.run([sys.executable, "-m", "dataset_converters", *words], cwd=ROOT, check=True)
        seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(json.dumps({"layout": arguments.layout, "scale": arguments.scale, "seconds": round(seconds, 1),
                          "cpu_seconds": round(used.ru_utime + used.ru_stime, 1), "peak_gib": round(used.ru_maxrss / 2**20, 2)}))  # fmt: skip


if __name__ == "__main__":
    main()
