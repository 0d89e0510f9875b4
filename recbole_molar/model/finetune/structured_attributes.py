"""SA, structured attributes: read title and metadata, write a natural-language description."""

from recbole_molar.model.finetune.base import FinetuneTask, Sample, Unbuildable, attributes_sentence, draw


class StructuredAttributes(FinetuneTask):
    """Title and attributes -> the description; where an item has none, a sentence made of its attributes."""

    name = "structured_attributes"
    reads_items_alone = True

    def samples(self, content, images, train_histories, count, rng):
        """See :meth:`FinetuneTask.samples`."""
        described = [index for index, item in enumerate(content.items) if set(item.fields) - {content.description_field}]
        if not described:
            raise Unbuildable("no item has a title or an attribute to read")
        made = []
        for index in draw(described, count, rng):
            item = content.items[index]
            made.append(Sample((index,), item.description or attributes_sentence(item, content), parts="attributes"))
        return made
