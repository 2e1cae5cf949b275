"""Reading: regular files, as far as they are allowed, and entries of archives as far as they claim."""

import io
import os
import zipfile

import pytest
from sample_files import make_lying_zip

from toolkit.files import reading


def test_a_file_is_read_as_far_as_it_may_be_long(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert reading.contents(tmp_path / "a", 5) == b"12345"
    os.truncate(tmp_path / "a", 2**40)  # takes no room on the disk
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        reading.contents(tmp_path / "a", 2**20)


def test_pipes_devices_and_links_to_them_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(ValueError, match="not a regular file"):
            reading.opened(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        reading.opened(tmp_path / "none")


def test_an_archive_of_very_many_entries(small_memory):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(2000):
            archive.writestr(zipfile.ZipInfo(str(i)), b"")
    reading.check_directory(buffer, 2**20)
    with small_memory(2**18), pytest.raises(ValueError, match="too many entries"):
        reading.check_directory(buffer, 2**16)


@pytest.mark.parametrize("claim, why", [(1000, "CRC"), (2**26, "shorter than it claims")])
def test_an_entry_that_lies_about_its_size(small_memory, claim, why):
    archive = zipfile.ZipFile(io.BytesIO(make_lying_zip("a", claim)))
    most = 2**27 if claim > 1000 else 2**20
    with small_memory(most), pytest.raises((zipfile.BadZipFile, ValueError), match=why):
        reading.unpacked(archive, archive.infolist()[0])
