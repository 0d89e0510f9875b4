"""What RecBole's metrics read: as RecBole's own collector gives it, and where that one fails too."""

import json

import pytest
import torch

from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.trainer.row_collector import RowCollector
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, Evaluator


@pytest.mark.parametrize("metric", ["NDCG", "GAUC"])
def test_metrics_are_those_of_recboles_collector(make_data, flags, metric):
    make_data()
    config = Config(config_dict=flags(metrics=["NDCG", metric]))
    results = []
    for collector in (RowCollector(config), Collector(config)):
        torch.manual_seed(0)
        found = []
        for sizes in ((4, 4, 3), (5,)):  # two evaluations: the second must not hold rows of the first
            for size in sizes:
                scores = torch.randn(size, 30)
                collector.eval_batch_collect(scores, Interaction({}), torch.arange(size), torch.randint(1, 30, (size,)))
            data = collector.get_data_struct()
            assert len(data.get("rec.topk")) == sum(sizes)
            found.append(dict(Evaluator(config).evaluate(data)))
        results.append(found)
    assert results[0] == results[1] and results[0][0] != results[0][1]


def test_metrics_beyond_accuracy(make_data, flags, command_line, capsys):
    make_data()
    metrics = ["NDCG", "GAUC", "ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"]
    given = flags(model="Popularity", metrics=json.dumps(metrics), topk="[5, 10]")
    assert main(["run", *command_line(given)]) == 0
    result = json.loads(open(capsys.readouterr().out.split()[-1]).read())["test_result"]
    assert {name.partition("@")[0] for name in result} == {name.lower() for name in metrics}
    assert 5 / 31 <= result["itemcoverage@5"] < 1  # a history is masked, so more than five items are recommended, and the padding is none


@pytest.mark.parametrize("levels", [3, 12, 10**6])
def test_hits_read_off_the_ranks_are_those_of_recbole(make_data, flags, levels):
    """With few levels of scores nearly all are tied, and torch's order among them decides."""
    make_data()
    config = Config(config_dict=flags())
    generator, ours, theirs = torch.Generator().manual_seed(0), RowCollector(config), Collector(config)
    for size in (64, 7):
        scores = torch.randint(levels, (size, 30), generator=generator).float()
        scores[:, 0] = -torch.inf
        positive = torch.randint(1, 30, (size,), generator=generator)
        target = scores[torch.arange(size), positive, None]
        ranks = torch.stack([(scores > target).sum(1) + 1, (scores == target).sum(1) - 1], 1)
        given = scores, Interaction({}), torch.arange(size), positive
        ours.eval_batch_collect(*given, ranks)
        theirs.eval_batch_collect(*given)
    found, expected = (collector.get_data_struct().get("rec.topk") for collector in (ours, theirs))
    assert torch.equal(found, expected) and found.dtype == expected.dtype and 0 < found[:, :-1].sum() < len(found)
