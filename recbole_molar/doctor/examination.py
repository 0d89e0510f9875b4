"""The story of `doctor`: the data and the parts as a run would load them, a look at each, an estimate, and the problems found."""

import contextlib
import logging
import shutil
import warnings

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import write_json
from recbole_molar.command_line import config_file_list, parse_command_line, read_yaml
from recbole_molar.config import Config, refuse_foreign_code
from recbole_molar.device import make_accelerator
from recbole_molar.doctor.advice import problems
from recbole_molar.doctor.backbone import build_here
from recbole_molar.doctor.comparison import compare, finished_run
from recbole_molar.doctor.data_report import cold_report, data_report, read_inter, training_counts
from recbole_molar.doctor.estimate import Estimate
from recbole_molar.doctor.features import look_at_features
from recbole_molar.doctor.id_report import id_report
from recbole_molar.doctor.image_report import image_report
from recbole_molar.doctor.page import write_page
from recbole_molar.doctor.rehearsal import free_memory
from recbole_molar.doctor.terminal import as_text
from recbole_molar.doctor.text_report import text_report
from recbole_molar.quick_start import prepare, read_content
from recbole_molar.run_folder import machine, make_folder, versions
from recbole.utils import init_seed

REPORT, PAGE = "report.json", "items.html"


def examine(arguments):
    """Run the doctor: print the report, write it and the page of items.

    Args:
        arguments (list of str): the command line of a run, `--key=value`; without `--model`, Molar's. `--run=<run folder>` takes
            the properties of a finished run and sets what it measured beside the estimate.

    Returns:
        tuple: path of `report.json`; the error that a run would stop with, or None.

    Raises:
        ValueError: the command line or a property is wrong; nothing has been written then.
    """
    warnings.filterwarnings("ignore", module="recbole|pandas")
    given = parse_command_line(arguments)
    finished = finished_run(given.pop("run")) if "run" in given else None
    config = _config(given, finished)
    folder = make_folder(config["output_dir"], config["dataset"], "doctor-{}")
    report, error = {"command": " ".join(arguments), "model": config["model"], "dataset": config["dataset"]}, None
    with _kept_warnings() as said:
        try:
            with config.locating():
                _look(config, report, folder, finished)
        except (ValueError, NotImplementedError) as reason:
            error = str(reason)
        except BaseException:  # interrupted, or an error of ours: no half report
            shutil.rmtree(folder)
            raise
    report.update(problems=problems(report, said, config), error=error, exit_code=2 if error else 0)
    write_json(folder / REPORT, report)
    print(as_text(report))
    return folder / REPORT, error


def _config(given, finished):
    files = config_file_list(given.get("config_files"))
    if finished:
        refuse_foreign_code(finished.config_file, given)
        return Config(config_file_list=[finished.config_file, *files], config_dict=given)
    if "model" not in given and not any("model" in read_yaml(file) for file in files):
        given = {"model": "Molar", **given}
    return Config(config_file_list=files, config_dict=given)


def _look(config, report, folder, finished):
    """Fill the report, section by section; what stops a run stops it too."""
    init_seed(config["seed"], config["reproducibility"])
    accelerator = make_accelerator(config["precision"], use_cpu=config["device"].type == "cpu", gpu_id=config["gpu_id"])
    config["device"], config["log_wandb"] = accelerator.device, False  # nothing here is a run
    free, total = free_memory(config["device"])
    report["machine"] = {**machine(), "device": str(config["device"]), "free_gib": round(free, 2), "total_gib": round(total, 2), "versions": versions()}
    prepared = prepare(config)
    report["training"] = prepared.note
    raw = read_inter(config)
    report["data"] = data_report(raw, prepared, config["MAX_ITEM_LIST_LENGTH"])
    report["cold"] = cold_report(prepared)
    report["ids"] = id_report(config, raw)  # before the texts are read: where nothing matches, reading them stops the run
    del raw
    content = read_content(config, prepared.dataset)
    mirm, is_here = None, True
    if "mirm_backbone" in config:
        mirm = _look_at_items(config, report, folder, prepared, content)
        is_here = mirm is not None
    elif content is not None:
        is_here = look_at_features(config, report, content)
    if is_here:
        decoded = report.get("images", {}).get("all_checked", True)
        report["estimate"] = Estimate(config, prepared, content, accelerator, folder, mirm, decoded, reuse=not finished).make()
        if finished:
            report["comparison"] = compare(report["estimate"], finished)


def _look_at_items(config, report, folder, prepared, content):
    """Sections on text and pictures, and the page; returns MIRM, or None where its backbone is not on this machine."""
    if content.has_images:
        report["images"] = image_report(content, config["mirm_image_size"])
    mirm, report["backbone"] = build_here(config, content)
    if any(item.fields for item in content.items):
        report["text"] = text_report(config, content, mirm and mirm.collator.prompt)
    write_page(folder / PAGE, config, content, mirm, training_counts(prepared))
    report["page"] = str(folder / PAGE)
    return mirm


class _Said(logging.Handler):
    """Keeps warnings, each once."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        """Keep one record."""
        if record.getMessage() not in self.messages:
            self.messages.append(record.getMessage())


@contextlib.contextmanager
def _kept_warnings():
    """What a run would log as a warning, kept for the report instead of printed."""
    root, said = logging.getLogger(), _Said()
    before, root.handlers = root.handlers[:], [said]
    try:
        yield said.messages
    finally:
        root.handlers = before
