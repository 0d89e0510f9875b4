"""Store the items' pictures as images/<item_id>.jpg: from URLs in the .item file, a CSV of links, or a folder or zip with other names.

A second run goes on where the first ended and fetches only what is missing.
"""

import asyncio
import collections
import functools
import re
import shlex
import warnings
from pathlib import Path

from dataset_converters.atomic import check_name
from dataset_converters.image_run import FileReader, ignores_case, is_missing, store_all, tidy
from dataset_converters.image_sources import apart, read_items, read_table, wanted_files, wanted_urls
from dataset_converters.local_files import open_files
from dataset_converters.manifest import STORED, Manifest
from dataset_converters.picture import store


def add_arguments(parser):
    """Add the options of this command to an argparse parser."""
    add = parser.add_argument
    add("--dataset", required=True, help="name of the data set: <data-path>/<name>/<name>.item exists, and images/ is made beside it")
    add("--data-path", default="dataset", help="folder that holds <name>/ (%(default)s)")
    source = parser.add_argument_group("where the pictures come from (one of)").add_mutually_exclusive_group()
    source.add_argument("--url-column", default="image_url", help="column of the .item file with one URL for each item (%(default)s)")
    source.add_argument("--links", help="CSV or TSV with the columns item_id and url")
    source.add_argument("--from", dest="files", help="folder or zip; names as in the column image_file, or equal to ids, with any usual extension")
    add("--mapping", help="CSV or TSV with the columns item_id and file, for --from with other names")
    add("--size", default="224x336", help="<width>x<height> to fit into; the aspect ratio is kept, nothing is enlarged (%(default)s)")
    add("--max-bytes", type=int, default=20 * 2**20, help="refuse larger files (%(default)s)")
    add("--max-pixels", type=int, default=40_000_000, help="refuse larger pictures before they are decoded (%(default)s)")
    add("--retry-failed", action="store_true", help="try again what failed in an earlier run")
    add("--overwrite", action="store_true", help="store all pictures anew, for example at another size")
    net = parser.add_argument_group("network")
    net.add_argument("--rate", type=float, default=20.0, help="requests a second for each host (%(default)s)")
    net.add_argument("--concurrency", type=int, default=16, help="requests at once, over all hosts (%(default)s)")
    net.add_argument("--timeout", type=float, default=30.0, help="seconds for one attempt, redirects included (%(default)s)")
    net.add_argument("--retries", type=int, default=3, help="attempts after the first, on 429, 5xx, timeouts and cut connections (%(default)s)")
    net.add_argument("--max-wait", type=float, default=60.0, help="longest wait between attempts in seconds, whatever a server asks for (%(default)s)")
    net.add_argument("--user-agent", default="recbole_molar-images", help="name to give to servers (%(default)s)")
    net.add_argument("--allow-private", action="store_true", help="allow private, loopback and other addresses that are not public")
    net.add_argument("--proxy", help="URL of a proxy; it resolves the names, so --allow-private is needed too. Those of the environment are ignored")


def run(args):
    """Run the command.

    Args:
        args (argparse.Namespace): as :func:`add_arguments` defines.

    Returns:
        tuple: the final count as text, and the exit code: 0 if at least one item has a picture now, 1 if none has.

    Raises:
        ValueError: wrong options or files, a package that is missing, a folder that cannot be written to.
    """
    box = check(args)
    wanted, reader = plan(args)
    folder = Path(args.data_path) / args.dataset / "images"
    try:
        folder.mkdir(exist_ok=True)
        with Manifest(folder) as manifest, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, and of bombs: our own limit is the one that counts
            present = tidy(folder)
            wanted = apart(wanted) if ignores_case(manifest.path) else wanted
            todo = [item for item in wanted if args.overwrite or is_missing(item, manifest.entries, present, args.retry_failed)]
            keep = functools.partial(store, box=box, max_pixels=args.max_pixels)
            left = asyncio.run(store_all(todo, reader, keep, manifest, present, args.concurrency))
            text = report(wanted, todo, left, manifest.entries, present)
        any_stored = any(item.id in present for item in wanted)
        if any_stored:
            let_runs_read_them(folder.parent / "dataset.yaml")
            text += "\nNext: python run_recbole_molar.py --model=Molar " + shlex.join([f"--data_path={args.data_path}", f"--dataset={args.dataset}"])
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error}). What is stored is kept; the same command goes on.") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what is stored in {folder} is kept, the same command goes on") from None
    return text, 0 if any_stored else 1


def let_runs_read_them(properties):
    """Where a converter wrote `item_modalities: [text]` into dataset.yaml, make it `[text, image]`."""
    if properties.is_file():
        text = properties.read_text(encoding="utf-8")
        changed = re.sub(r"^item_modalities: \[text\]", "item_modalities: [text, image]", text, flags=re.M)
        if changed != text:
            temporary = properties.with_name(f".{properties.name}.tmp")
            temporary.write_text(changed, encoding="utf-8")
            temporary.replace(properties)


def check(args):
    """The box as (width, height).

    Raises:
        ValueError: an option out of its range.
    """
    width, _, height = args.size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 10_000 and 0 < int(height) <= 10_000):
        raise ValueError(f"--size={args.size}: not <width>x<height> in pixels, such as 224x336.")
    for name, least in (("max_bytes", 1), ("max_pixels", 1), ("concurrency", 1), ("retries", 0), ("max_wait", 0), ("rate", 0.001), ("timeout", 0.001)):
        if not least <= getattr(args, name) < float("inf"):
            raise ValueError(f"--{name.replace('_', '-')}={getattr(args, name)}: must be {least} or more.")
    if args.mapping and not args.files:
        raise ValueError("--mapping names the files of --from, which is missing.")
    if args.proxy and not args.proxy.startswith(("http://", "https://")):
        raise ValueError(f"--proxy={args.proxy}: not an http or https URL.")
    if args.proxy and not args.allow_private:
        raise ValueError("--proxy resolves names itself, so private addresses cannot be refused here. Add --allow-private to accept that.")
    return int(width), int(height)


def plan(args):
    """What is wanted, a list of :class:`Wanted`, and what reads it: a FileReader or a Fetcher.

    Raises:
        ValueError: wrong files, httpx2 is missing.
    """
    check_name(args.dataset)
    folder = Path(args.data_path) / args.dataset
    if args.files:
        items = read_items(folder, args.dataset, "image_file", required=False)
        mapping = read_table(args.mapping, "file") if args.mapping else None
        files = open_files(args.files)
        return wanted_files(files, items, mapping, items), FileReader(files, args.max_bytes)
    items = read_items(folder, args.dataset, None if args.links else args.url_column)
    return wanted_urls(read_table(args.links, "url") if args.links else items, items), _fetcher(args)


def _fetcher(args):
    try:
        from dataset_converters.fetch import Fetcher, Limits  # here, because files need no network and no httpx2
    except ImportError as error:
        how = "pip install 'recbole_molar[images]', in a checkout pip install -e '.[images]'"
        raise ValueError(f"fetching pictures needs httpx2 ({error}). Install it: {how}.") from error
    limits = Limits(
        max_bytes=args.max_bytes, timeout=args.timeout, retries=args.retries, max_wait=args.max_wait, rate=args.rate, concurrency=args.concurrency
    )
    return Fetcher(limits, args.allow_private, args.proxy, args.user_agent)


def report(wanted, todo, left, entries, present):
    """The final count as text: all items, then those without a picture by cause.

    Args:
        wanted (list), todo (list): all items, and those that this run was for.
        left (dict): item id -> cause, of those that were not tried.
        entries (dict), present (set): the manifest, and the ids that have a picture.
    """
    tried = {item.id for item in todo} - left.keys()
    new = sum(entries[item_id]["status"] == STORED for item_id in tried)
    have = [item for item in wanted if item.id in present]
    lines = [f"{len(wanted)} items: {len(have)} with a picture ({new} new in this run), {len(wanted) - len(have)} without"]
    causes = collections.Counter(left.get(item.id) or entries[item.id].get("cause", "") for item in wanted if item.id not in present)
    lines += [f"  {count:>8} {cause}" for cause, count in causes.most_common()]
    failed_before = sum(item.id not in present and item.id not in tried and item.id not in left and not item.cause for item in wanted)
    if failed_before:
        lines.append(f"{failed_before} of these failed in an earlier run and were not tried again: --retry-failed does that")
    changed = sum(entries.get(item.id, {}).get("status") == STORED and entries[item.id].get("source") != item.source for item in have)
    if changed:
        lines.append(f"{changed} pictures were stored from another source than the present one: --overwrite stores all anew")
    return "\n".join(lines)
