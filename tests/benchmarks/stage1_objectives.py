"""Compares stage-1 objectives by what their item embeddings retrieve; the figures are in docs/stage1.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/stage1_objectives.py --data ../shared/data/ml-1m --samples 2000 --variants untrained state

Three proxies, all on training interactions (the last two of each user are never read): genre Jaccard@10 among nearest neighbours,
and next-item Recall@10 and @50 for each user's last training item (left out of stage 1) from the mean of the three before it. Cosine of
centred embeddings. Effective rank (at most the embeddings' length): of the table, and of 600 items read by title and attributes alone and by their
image alone.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from recbole_molar.data.item_content import ItemContent  # noqa: E402
from recbole_molar.device import make_accelerator  # noqa: E402
from recbole_molar.model.item_embedding import ItemEmbedding, effective_rank  # noqa: E402
from recbole_molar.model.mirm import MIRM  # noqa: E402
from recbole_molar.trainer.mirm_finetune_trainer import MIRMFinetuneTrainer, make_tasks  # noqa: E402

TASKS = ["image_text", "structured_attributes", "user_behavior"]
ROW = "| {} | {:.3f} | {:.4f} | {:.4f} | {:.1f} | {:.1f} | {:.1f} | {:.0f} |"
VARIANTS = {
    "generation": dict(objective="generation"),
    "generation+bow": dict(objective="generation", bow_weight=1.0),
    "state": dict(objective="through_state"),
    "state+bow": dict(objective="through_state", bow_weight=1.0),
    "state+contrast": dict(objective="through_state", contrast_weight=1.0),
    "state+bow+contrast": dict(objective="through_state", bow_weight=1.0, contrast_weight=1.0),
    "state+bow+contrast+views": dict(objective="through_state", bow_weight=1.0, contrast_weight=1.0, view_contrast_weight=1.0),
}


def load(folder):
    """Content, external ids and training histories of internal ids, in the file's order."""
    folder, histories, ids = Path(folder), {}, {"[PAD]": 0}
    with open(folder / f"{folder.name}.inter", encoding="utf-8") as file:
        next(file)
        for line in file:
            user, item = line.split("\t")[:2]
            histories.setdefault(user, []).append(ids.setdefault(item, len(ids)))
    fields = ["movie_title", "release_year", "genre", "director", "actors", "plot"]
    content = ItemContent.read(folder / f"{folder.name}.item", list(ids), fields, "plot", image_dir=folder / "images")
    return content, [np.array(history[:-2]) for history in histories.values()]


def proxies(table, content, histories):
    """Genre Jaccard@10, Recall@10 and @50; table [n_items, D]."""
    table = F.normalize(table - table[1:].mean(0), dim=-1)
    table[0] = 0
    genres = [set(item.fields.get("genre", "").split()) for item in content.items]
    near = (table[1:] @ table[1:].T).fill_diagonal_(-9).topk(10).indices + 1
    pairs = [(genres[item + 1], genres[other]) for item, row in enumerate(near.tolist()) for other in row]
    jaccard = np.mean([len(one & other) / max(len(one | other), 1) for one, other in pairs])
    long = [history for history in histories if len(history) >= 4]
    users = torch.stack([table[history[-4:-1]].mean(0) for history in long])
    scores = users @ table.T
    scores[:, 0] = -9
    for row, history in enumerate(long):
        scores[row, history[:-1]] = -9
    targets = torch.tensor([int(history[-1]) for history in long])
    rank = (scores > scores[torch.arange(len(long)), targets][:, None]).sum(1)
    return jaccard, (rank < 10).float().mean().item(), (rank < 50).float().mean().item()


@torch.no_grad()
def view_ranks(mirm, accelerator, items=600):
    """Effective rank of the states of the same items read by title and attributes alone, and by their image alone."""
    mirm.eval()
    chosen = np.linspace(1, len(mirm.content) - 1, items).astype(int).tolist()
    ranks = []
    for parts in ("attributes", "image"):
        with accelerator.autocast():
            rows = [mirm.encode_items(chosen[start : start + 50], parts=parts).float() for start in range(0, items, 50)]
        ranks.append(effective_rank(torch.cat([rows[0][:1], *rows])))
    return ranks


def tf_idf(mirm):
    """TF-IDF of the items' tokens, dense [n_items, V]."""
    from recbole_molar.model.finetune.objective import BagsOfWords

    words = BagsOfWords(mirm)
    table = torch.zeros(len(mirm.content), words.words)
    for row, (tokens, weights) in enumerate(words.bags):
        table[row, tokens] = weights
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data/ml-1m")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--readout", default="cur_item")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=["random", "tf-idf", "untrained", *VARIANTS])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="saved/stage1_objectives")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    content, histories = load(arguments.data)
    accelerator, rows = make_accelerator(), []
    for name in arguments.variants:
        torch.manual_seed(arguments.seed)
        options = {"compact_hidden_size": arguments.hidden, "compact_num_layers": arguments.layers}
        mirm = MIRM.build(
            content, max_tokens=arguments.max_tokens, readout=arguments.readout, seed=arguments.seed, backbone_options=options
        )
        start, seconds = time.time(), 0
        if name in VARIANTS:
            trainer = MIRMFinetuneTrainer(
                mirm, make_tasks(arguments.tasks), accelerator, [history[:-1] for history in histories], arguments.folder,
                samples=arguments.samples, epochs=arguments.epochs, batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate, seed=arguments.seed, **VARIANTS[name],
            )  # fmt: skip
            print(name, trainer.fit(), flush=True)
            seconds = time.time() - start
        if name == "random":
            table, ranks = torch.randn(len(content), mirm.embedding_dim), (0, 0)
        elif name == "tf-idf":
            table, ranks = tf_idf(mirm), (0, 0)
        else:
            table, ranks = ItemEmbedding().fill(mirm, accelerator), view_ranks(mirm, accelerator)
        rows.append((name, *proxies(table, content, histories), effective_rank(table), *ranks, seconds))
        print(ROW.format(*rows[-1]), flush=True)
    print("\n| objective | genre Jaccard@10 | next item R@10 | R@50 | rank | attributes | image | stage 1, s |\n|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(ROW.format(*row))


if __name__ == "__main__":
    main()
