"""The doctor's look at a model of item features (SASRecContent): its items, its encoders as far as this machine has them, and what they cost."""

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.doctor.backbone import local_folder
from recbole_molar.doctor.image_report import image_report
from recbole_molar.doctor.rehearsal import seconds_per_batch, watched
from recbole_molar.doctor.text_report import text_report
from recbole_molar.feature_stages import ENCODERS, assemble, compact_trainer, encoder_options, modalities
from recbole_molar.model.item_embedding import ItemEmbedding

STEPS_DRAWN, ITEMS_TIMED = 8, 128


def look_at_features(config, report, content):
    """Sections on text, pictures and encoders.

    Returns:
        bool: True where all encoders are on this machine, so that time and memory can be estimated.
    """
    chosen, report["encoders"] = modalities(config, content), {}
    if "image" in chosen:
        report["images"] = image_report(content, [config["encoder_image_side"]] * 2)
    if "text" in chosen:
        report["text"] = text_report(config, content, None)
    for modality in chosen:
        key = ENCODERS[modality].key
        entry = report["encoders"][key] = {"name": str(config[key])}
        if entry["name"] != "compact" and local_folder(entry["name"]) is None:
            entry["why_not"] = "it is not on this machine (a run would download it), so time and memory are not known"
    return not any("why_not" in entry for entry in report["encoders"].values())


def rehearse_features(estimate):
    """Put the stages before the recommender into an :class:`Estimate`; returns the recommender over random features."""
    config, content, encoders = estimate.config, estimate.content, []
    for modality in modalities(config, content):
        encoders.append(_encoder(estimate, content.only(modality), modality))
    _tables(estimate, encoders)
    tables = [torch.randn(len(content), encoder.embedding_dim) for encoder in encoders]
    return assemble(config, estimate.prepared, tables, encoders)


def _encoder(estimate, content, modality):
    """The encoder of one modality; a compact one untrained, its training rehearsed, where the cache does not have it."""
    config, part = estimate.config, ENCODERS[modality]
    name, stage = str(config[part.key]), {}
    if name != "compact":
        return part.build(name, content, **encoder_options(config, modality))
    trainer = compact_trainer(config, content, modality, estimate.accelerator)
    if estimate.cache and trainer.is_finished:
        estimate.skip(f"{modality}_encoder", f"reused: {trainer.folder}")
        return part.build(str(trainer.folder), content, **encoder_options(config, modality))
    compact = trainer.make().to(estimate.device).train()
    with watched(stage, estimate.device):
        steps, training = trainer.n_steps(len(trainer.readable(compact))), trainer.steps(compact)
        each = seconds_per_batch(range(STEPS_DRAWN), lambda step: 1, lambda step: next(training), estimate.device) if steps else 0.0
        stage.update(seconds=round(each * steps, 1), batches=steps, about=f"{steps:,} batches of {trainer.batch_size} items")
    estimate.stages[f"{modality}_encoder"] = stage
    options = encoder_options(config, modality)
    return part(compact.encoder, compact.collator, options["pooling"], options["batch_size"])


def _tables(estimate, encoders):
    """A part of the items through each encoder; those in the cache cost nothing."""
    stage, seconds, computed = {}, 0.0, 0
    with watched(stage, estimate.device), torch.no_grad():
        for encoder in encoders:
            encoder.to(estimate.device).eval()
            batches = [batch for _, batch in encoder.collator.batches(range(1, 1 + min(ITEMS_TIMED, len(encoder.content) - 1)), encoder.encode_batch_size)]
            each = seconds_per_batch(batches, lambda batch: next(iter(batch.values())).numel(), encoder, estimate.device)
            every = each * (len(encoder.content) - 1) / encoder.encode_batch_size
            estimate.all_items_seconds += every
            marks = encoder.content.fingerprints()[1:]
            known = ItemEmbedding(estimate.item_cache).known(encoder, estimate.accelerator)[1] if estimate.item_cache else {}
            missing = sum(mark not in known for mark in marks)
            seconds, computed = seconds + every * missing / max(len(marks), 1), computed + missing
        stage.update(seconds=round(seconds, 1), about=f"{computed:,} texts and pictures through their encoders")
    if not computed and estimate.config["item_encoding"] != "end_to_end":
        return estimate.skip("item_features", f"reused: all are in {estimate.cache}")
    estimate.stages["item_features"] = stage
