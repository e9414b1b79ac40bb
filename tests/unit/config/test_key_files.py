"""Provider keys that are rotated without a restart."""

from __future__ import annotations

import pytest

from penstock.config.key_files import KeyFiles
from penstock.config.model import Config, ProviderTable


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-first\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def key_files(key_file):
    table = ProviderTable(kind="openai", base_url="https://host/v1", key_file=str(key_file))
    without = ProviderTable(kind="openai", base_url="https://other/v1")
    return KeyFiles(Config(providers={"one": table, "two": without}))


def test_what_has_not_changed_is_not_told(key_files):
    assert ({}, []) == key_files.changed()


def test_a_file_that_was_written_over_or_replaced_gives_its_new_key_once(key_files, key_file):
    key_file.write_text("sk-second-one\n")
    assert ({"one": "sk-second-one"}, []) == key_files.changed()
    beside = key_file.with_suffix(".new")
    beside.write_text("sk-third-one!\n")
    beside.replace(key_file)
    assert ({"one": "sk-third-one!"}, []) == key_files.changed()
    assert ({}, []) == key_files.changed()


@pytest.mark.parametrize("content", ["", "two words", "a\nb", "x" * 5000])
def test_what_is_no_key_changes_nothing_and_is_said_once_without_its_content(
    key_files, key_file, content
):
    key_file.write_text(content)
    keys, [problem] = key_files.changed()
    assert {} == keys
    assert "providers.one.key_file" in problem
    assert not content or content not in problem
    assert ({}, []) == key_files.changed()
    key_file.unlink()
    assert 1 == len(key_files.changed()[1])
