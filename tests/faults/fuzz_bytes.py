"""Fuzzing readers of bytes with atheris, which looks for inputs that reach new code.

atheris is no dependency of the workspace. To find more than test_fuzz.py does:

    uv run --with atheris python tests/faults/fuzz_bytes.py householder_gan.read_pickle -runs=10000

The first argument is a name in READERS of readers.py; the others are libFuzzer's.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

PARSERS = ["householder_gan.restricted_pickle", "gguf.gguf_reader"]


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("test_fuzz.py"))
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = fuzz
    spec.loader.exec_module(fuzz)
    # Only what parses, for all of PyTorch would take an hour; pickle anew, in Python.
    sys.modules.pop("pickle")
    with atheris.instrument_imports(include=["pickle", *PARSERS]):
        for name in ("pickle", *PARSERS):
            importlib.import_module(name)
    name = sys.argv.pop(1)
    folder = Path(tempfile.mkdtemp())
    path, data = fuzz.whole(name, folder / "file")
    (folder / "corpus").mkdir()
    (folder / "corpus" / "whole").write_bytes(data)
    atheris.Setup([*sys.argv, str(folder / "corpus")], lambda given: fuzz.check(name, path, given))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
