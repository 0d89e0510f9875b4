"""What `comparison.examine` returns, in small."""


def example(p_holm):
    """Three models, one metric, one difference with this p-value."""

    def model(label, value):
        spread = {"mean": value, "std": 0.001, "values": [value]}
        both = {"test": {"ndcg@10": spread}, "valid": {"ndcg@10": spread}}
        return {"label": label, "seeds": [1, 2], **both, "segments": {}, "beyond": {}, "cost": {"parameters": 5}}

    difference = {"model": "b_1", "metric": "ndcg@10", "mean": 0.1, "relative": 0.5, "low": 0, "high": 1, "p": 0.01, "p_holm": p_holm, "effect": 0.1}
    return {
        "dataset": "d", "users": 9, "valid_metric": "ndcg@10", "metrics": ["ndcg@10"], "reference": "a", "segment_users": {}, "failed": {}, "mode": "full",
        "metrics_left_out": [],
        "models": [model("a", 0.2), model("b_1", 0.3), model("c|d", 0.1)], "differences": [difference],
    }
