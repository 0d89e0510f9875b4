"""Compact encoders in the cache are of the items that they were trained on."""

from types import SimpleNamespace

import pytest
from toy_items import toy_content

from recbole_molar.config import Config
from recbole_molar.data.item_content import ItemContent
from dataclasses import replace

from recbole_molar.feature_stages import compact_trainer


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_compact_encoder_is_of_the_items_that_it_was_trained_on(tmp_path, flags, modality):
    content = toy_content(tmp_path)
    other = list(content.items)
    other[5] = replace(other[5], fields={**other[5].fields, "genre": "zebra"}, image_path=other[6].image_path)
    accelerator = SimpleNamespace(mixed_precision="no")

    def folder(content, **options):
        config = Config(config_dict=flags(model="SASRecContent", **options))
        return compact_trainer(config, content.only(modality), modality, accelerator).folder

    folders = [folder(content), folder(ItemContent(other, "plot")), folder(content, seed=3), folder(content, encoder_epochs=9)]
    assert len(set(folders)) == 4 and folder(content) == folders[0]
