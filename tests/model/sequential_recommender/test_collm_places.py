"""At which place of a history CoLLM puts the user's token."""

import torch
from test_collm import SMALL  # noqa: F401


def test_a_users_token_is_of_the_history_up_to_its_place(make_data, make):
    """What comes next, which is the target there, is not in it."""
    make_data(items=True)
    _, prepared, model = make()
    batch = next(iter(prepared.loaders[0]))
    lengths, columns = batch["item_length"], torch.arange(batch["item_id_list"].size(1))
    _, place, valid = model.eval()._window(batch["item_id_list"], lengths, (lengths > 4).long())
    tokens = model._tokens_at(batch, place, valid)
    assert not tokens[~valid].any() and valid.sum() > 20
    for row, column in valid.nonzero().tolist()[::5]:
        prefix, end = batch[[row]], int(place[row, column])
        prefix["item_id_list"], prefix["item_length"] = prefix["item_id_list"] * (columns <= end), torch.tensor([end + 1])
        torch.testing.assert_close(tokens[row, column], model.user_tokens(prefix)[0], rtol=1e-4, atol=1e-5)
