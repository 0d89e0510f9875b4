"""What every table of bad input asserts: one short error, an exit code, and a disk as it was before."""

import hashlib
import re


def listing(folder):
    """Everything below a folder: relative name -> digest of a file, link target, or "folder"."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def assert_short_error(code, out, err, message):
    """Exit code 2 and one error that says what is expected (a regular expression), without a traceback."""
    assert code == 2, (code, out[-500:], err)
    assert err.startswith("error: ") and "Traceback" not in err and len(err) < 1500 and err.count("\n") <= 8, err
    assert re.search(message, err, re.S), err
