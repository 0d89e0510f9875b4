"""The problems found, most severe first, each with what to do about it."""

STAGE_KEYS = {
    "mirm_finetune": "mirm_finetune_batch_size", "item_embedding": "mirm_encode_batch_size", "item_features": "encode_batch_size",
    "id_model": "id_train_batch_size",
}
TEST_KEY, TRAIN_KEY = "eval_batch_size", "train_batch_size"
OTHER_ID_MODEL = "id_model_"  # before the name of one of `more_id_models`
NOTABLE_SHARE, LONG_HOURS = 0.01, 2.0
MARGIN = 2  # a whole run holds more than a few batches show: on ml-1m 3.7 GiB where they showed 2.0


def problems(report, said, config):
    """Warnings for the report.

    Args:
        report (dict): its sections so far; any may be missing. said (list): what the run's own parts warned of. config (Config): the run's.

    Returns:
        list of str: most severe first.
    """
    found = []  # (rank, text); the lower the rank the more severe
    for rank, check in enumerate((_memory, _ids, _ties, _pictures, _backbone, _cold, _text, _duplicates, _time, _histories)):
        found += [(rank, text) for text in check(report, config)]
    found += [(len(found) + 100, message) for message in said if not _covered(message, report, config)]
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]


def _covered(message, report, config):
    """Whether a section says already what a part of the run warned of, or it is what the user asked for."""
    if "repeat an id" in message:
        return "ids" in report
    return "image_text is skipped" in message and "image" not in config["item_modalities"]


def _memory(report, config):
    estimate = report.get("estimate", {})
    free = estimate.get("free_gib", 0)
    for name, stage in estimate.get("stages", {}).items():
        if "does_not_fit" not in stage and MARGIN * stage["peak_gib"] <= free:
            continue
        key = TEST_KEY if name == "test" else STAGE_KEYS.get(name, TRAIN_KEY)
        size = config[key] or 2
        if name.startswith(OTHER_ID_MODEL):
            yield f"{name} does not fit into memory: give {name.removeprefix(OTHER_ID_MODEL)} a smaller train_batch_size in --more_id_models."
            continue
        less = f"set --{key}={max(1, size // 4 if 'does_not_fit' in stage else int(size * free / stage['peak_gib'] / MARGIN))} (now {size})"
        why = stage.get("does_not_fit") or f"a few batches took {stage['peak_gib']:.1f} GiB, a whole run may hold twice that, and {free:.1f} GiB are free"
        more = {"mirm_finetune": ", --mirm_max_tokens lower, or --mirm_tuning=lora", config["model"]: ", or a smaller --MAX_ITEM_LIST_LENGTH"}.get(name, "")
        yield f"{name} does not fit into memory ({why}): {less}{more}."


def _ids(report, config):
    ids = report.get("ids", {})
    without = ids.get("without_row", {}).get("count", 0)
    if without:
        yield (
            f"{without:,} of {ids['interactions']:,} items with interactions have no row in {config['dataset']}.item ({_some(ids['without_row'])}), so "
            f"no text of them is read: add the rows, or check that both files write ids alike."
        )
    repeated = ids.get("repeated", {}).get("count", 0)
    if repeated:
        yield f"{repeated:,} ids stand more than once in {config['dataset']}.item ({_some(ids['repeated'])}); the first row counts: remove the others."
    strays = ids.get("picture_of_no_item", {}).get("count", 0)
    if strays and strays > NOTABLE_SHARE * ids["pictures"]:
        yield f"{strays:,} pictures are named for no item ({_some(ids['picture_of_no_item'])}): name them <item_id>.jpg, with the ids of .item."


def _ties(report, config):
    ties = report.get("data", {}).get("ties", {}).get("float64", {})
    if ties.get("share_of_test_users", 0) > NOTABLE_SHARE:
        yield (
            f"the test item of {ties['share_of_test_users']:.1%} of the users has the same time as its neighbour, so the order of the lines in "
            f"{config['dataset']}.inter decides: give finer times, or sort the lines as things happened."
        )


def _pictures(report, config):
    images, where = report.get("images"), f"{config['item_image_dir']}/" if "item_image_dir" in config else ""
    if not images:
        return
    part = "" if images["all_checked"] else f" of the {images['checked']:,} looked at"
    if images["broken"]["count"]:
        yield f"{images['broken']['count']:,} pictures{part} cannot be read ({_some(images['broken'])}) and count as missing: fetch them again into {where}."
    if images["share_missing"] > NOTABLE_SHARE:
        yield f"{images['missing']:,} of {images['items']:,} items have no picture; their text alone is read: add {where}<item_id>.jpg where you can."
    if images["tiny"]["count"]:
        yield f"{images['tiny']['count']:,} pictures{part} have a side below 32 pixels ({_some(images['tiny'])}): fetch larger ones."
    if images["duplicates"]["files"] > NOTABLE_SHARE * max(images["checked"], 1):
        yield f"{images['duplicates']['files']:,} pictures{part} are copies of another ({_some_groups(images)}), placeholders perhaps: delete those."


def _backbone(report, config):
    backbone = report.get("backbone", {})
    if "needed_gib" in backbone:
        yield f"mirm_backbone={backbone['name']}: {backbone['why_not']}: take a smaller one, or --mirm_backbone=compact."


def _cold(report, config):
    test = report.get("cold", {}).get("test", {})
    if test.get("share_of_users", 0) > NOTABLE_SHARE:
        hint = "text and picture are all that is known of it" if "backbone" in report or "encoders" in report else "a model of ids alone cannot rank it"
        yield f"the test item of {test['share_of_users']:.1%} of the users is in no training interaction ({hint}): report such users apart."


def _text(report, config):
    text = report.get("text", {})
    tokens = text.get("tokens", {})
    if tokens.get("share_cut", 0) > 0.1:
        yield (
            f"{tokens['share_cut']:.1%} of the items have more text than the {tokens['limit']} tokens that MIRM reads: set "
            f"--mirm_max_tokens={tokens['p95']} (19 of 20 items whole; time grows with it), or put what matters first in --item_text_fields."
        )
    for name, field in text.get("fields", {}).items():
        if field["filled"] < 0.5:
            yield f"the column {name} is empty for {1 - field['filled']:.0%} of the items: leave it out of --item_text_fields, or fill it."
    if text.get("without_text"):
        yield f"{text['without_text']:,} of {text['items']:,} items have no text at all: fill their rows in {config['dataset']}.item."


def _duplicates(report, config):
    data = report.get("data", {})
    again, kept = data.get("duplicates", {}).get("after_filter", 0), data.get("after_filter", {}).get("interactions", 0)
    if again > NOTABLE_SHARE * kept:
        yield f"{again:,} interactions ({again / kept:.1%}) repeat a user and an item: set --rm_dup_inter=first if a repetition means nothing."


def _time(report, config):
    estimate = report.get("estimate", {})
    hours = estimate.get("total_seconds", 0) / 3600
    if hours < LONG_HOURS:
        return
    name, stage = max(estimate["stages"].items(), key=lambda entry: entry[1].get("seconds", 0))
    if name == "mirm_finetune":
        do = f"set --mirm_finetune_samples={max(1, config['mirm_finetune_samples'] // 4)} (now {config['mirm_finetune_samples']})"
    elif name == "item_embedding":
        do = "take a smaller backbone or a lower --mirm_max_tokens, or leave rare items out with --item_inter_num_interval='[5,inf)'"
    elif name == "test":
        do = "use a faster machine; all users are ranked once"
    elif name.startswith(OTHER_ID_MODEL):
        do = f"give {name.removeprefix(OTHER_ID_MODEL)} in --more_id_models fewer epochs (now {stage['epochs']})"
    elif "epochs" not in stage:  # features of SASRecContent
        do = "take smaller encoders, or leave rare items out with --item_inter_num_interval='[5,inf)'"
    else:
        key = {"id_model": "id_epochs", "tuning": "tuning_epochs"}.get(name, "epochs")
        do = f"set --{key}={max(1, stage['epochs'] // 2)} (now {stage['epochs']}), or a smaller --MAX_ITEM_LIST_LENGTH (now {config['MAX_ITEM_LIST_LENGTH']})"
    early = ", less where validation stops it early" if stage.get("validations") else ""
    yield f"the run takes up to {hours:.1f} hours, {stage.get('seconds', 0) / 3600:.1f} of them {name}{early}: {do}, or use a GPU."


def _histories(report, config):
    history = report.get("data", {}).get("history", {})
    if history.get("share_longer", 0) > 0.2:
        longest = history["max_length"]
        yield (
            f"{history['share_longer']:.0%} of the histories are longer than MAX_ITEM_LIST_LENGTH={longest}, and only their last {longest} items are read: "
            f"raise it if older items matter (time grows with it)."
        )


def _some(entry):
    return ", ".join(entry["examples"]) + (", …" if entry["count"] > len(entry["examples"]) else "")


def _some_groups(images):
    return "; ".join(" = ".join(group) for group in images["duplicates"]["examples"][:2])
