"""Files are parsed into a stated type, and a folder has one writer at a time."""

import re
import subprocess
import sys

import pytest
from pydantic import BaseModel

from lspipe.files import locked, parse, write_bytes
from lspipe.interrupt import explain


class Receipt(BaseModel):
    samples: tuple[int, int]
    seconds: float


def test_text_becomes_the_stated_type():
    assert parse("a.json", Receipt, b'{"samples": [0, 4], "seconds": 1}') == Receipt(samples=(0, 4), seconds=1.0)
    assert parse("a.json", Receipt, {"samples": [0, 4], "seconds": 1.5}).samples == (0, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its text"),
        (b"\xff\xfe", "its text"),
        (b"[]", "its text"),
        (b'{"sbmples": [0, 4], "seconds": 1}', "samples"),
        (b'{"samples": ["0", 4], "seconds": 1}', "samples.0 = '0'"),
        (b'{"samples": [0, 4.5], "seconds": 1}', "samples.1 = 4.5"),
        ({"samples": [0, 4], "seconds": "1"}, "seconds = '1'"),
    ],
)
def test_other_text_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=f"^a.json: is damaged: {re.escape(message)}") as raised:
        parse("a.json", Receipt, data)
    assert "\n" not in str(raised.value)


def test_a_lock_keeps_other_processes_out_and_ends_with_its_process(tmp_path):
    program = """if True:
        import pathlib, sys
        from lspipe.files import locked
        with locked(pathlib.Path(sys.argv[1])):
            print("locked", flush=True)
            sys.stdin.read()"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        for shared in (False, True):
            with pytest.raises(ValueError, match="another process is writing"), locked(tmp_path / "a", shared=shared):
                pass
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path / "a", shared=True), locked(tmp_path / "a", shared=True):
        pass


def test_a_file_that_cannot_be_replaced_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_bytes(tmp_path / "a", b"1")
    assert explain(caught.value) == f"{tmp_path / 'a'}: is a directory"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
