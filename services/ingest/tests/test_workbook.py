"""Workbooks: what is read of them, what their owners are told, and what hostile ones come to."""

from __future__ import annotations

import csv
import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx2
import openai
import openpyxl
import pytest

from ingest.app import build
from ingest.readers import BadRows, FormatError, Parsed, Source, check_kept, parse, workbook, worksheet
from ingest.settings import Settings
from ingest.worker import PARSER_ENVIRONMENT
from schemas import DatasetPrepared, DatasetRejected
from testkit import Space, eventually, running

HEADER = ("message", "intent")
ROWS = [HEADER, *((f"row {n}", f"label_{n % 3}") for n in range(12))]
SHEET = "xl/worksheets/sheet1.xml"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRINGS_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
INLINE = re.compile(r'<c r="([A-Z]+\d+)"([^>]*) t="inlineStr"[^>]*><is>(.*?)</is></c>', re.DOTALL)


def book(sheet: Sequence[Sequence[Any]] = ROWS, title: str = "Data", **others: Sequence[Sequence[Any]]) -> bytes:
    """A workbook of sheets by their titles."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in {title: sheet, **others}.items():
        page = made.create_sheet(name)
        for row in rows:
            page.append(row)
    return saved(made)


def saved(made: openpyxl.Workbook) -> bytes:
    body = io.BytesIO()
    made.save(body)
    return body.getvalue()


def changed(data: bytes, change: Callable[[str, bytes], bytes], **more: bytes) -> bytes:
    """The archive with the content of its parts changed, and with more of them."""
    body = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, content in more.items():
            new.writestr(name, content)
    return body.getvalue()


def in_sheet(data: bytes, old: str, new: str) -> bytes:
    """The workbook with one text of its first sheet's XML replaced."""

    def change(name: str, content: bytes) -> bytes:
        if name != SHEET:
            return content
        assert content.count(old.encode()) == 1, content
        return content.replace(old.encode(), new.encode())

    return changed(data, change)


def shared(data: bytes) -> bytes:
    """The workbook as Excel writes it: each text once, in a part of its own, and cells that point there."""
    texts: dict[str, int] = {}

    def pointed(cell: re.Match[str]) -> str:
        return f'<c r="{cell[1]}"{cell[2]} t="s"><v>{texts.setdefault(cell[3], len(texts))}</v></c>'

    def change(name: str, content: bytes) -> bytes:
        if name.startswith("xl/worksheets/"):
            return INLINE.sub(pointed, content.decode()).encode()
        kind = "sharedStrings"
        if name == "[Content_Types].xml":
            part = f'<Override PartName="/xl/{kind}.xml" ContentType="{STRINGS_TYPE}"/></Types>'
            return content.replace(b"</Types>", part.encode())
        if name == "xl/_rels/workbook.xml.rels":
            part = f'<Relationship Id="rId90" Type="{RELATIONS}/{kind}" Target="{kind}.xml"/></Relationships>'
            return content.replace(b"</Relationships>", part.encode())
        return content

    pointing = changed(data, change)
    strings = "".join(f"<si>{text}</si>" for text in texts)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    parts = {"xl/sharedStrings.xml": f'<sst xmlns="{main}">{strings}</sst>'.encode()}
    return changed(pointing, lambda _, content: content, **parts)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Parsed]:
    def read(
        data: bytes,
        *,
        filename: str = "rows.xlsx",
        columns: dict[str, str] | None = None,
        purpose: str = "user_data",
        bad_rows: BadRows = "refuse",
    ) -> Parsed:
        (tmp_path / "upload").write_bytes(data)
        return parse(Source(tmp_path / "upload", filename), columns=columns or {}, purpose=purpose, bad_rows=bad_rows)

    return read


def refusal(read: Callable[..., Parsed], data: bytes, **asked: Any) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(data, **asked)
    assert len(caught.value.message) < 1000
    return caught.value


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (ROWS, {}),
        ([("text",), ("one",), ("two",)], {}),
        ([("instruction", "input", "output", "system"), ("add", "1 2", "3", "be brief"), ("say", None, "a", None)], {}),
        ([("q", "a", "note"), ("one", "x", "seen"), ("one", "x", None)], {"text": "q", "label": "a"}),
        ([(), HEADER, (), ("hi", "greet"), (None, None), ("bye", "part")], {}),
    ],
)
@pytest.mark.parametrize(("filename", "written"), [("rows.xlsx", bytes), ("rows", shared), ("rows.csv", bytes)])
def test_a_workbook_says_what_its_sheet_says_as_csv(
    read: Callable[..., Parsed],
    rows: list[tuple[Any, ...]],
    columns: dict[str, str],
    filename: str,
    written: Callable[[bytes], bytes],
) -> None:
    text = io.StringIO()
    width = max(map(len, rows))
    csv.writer(text).writerows([*row, *[None] * (width - len(row))] for row in rows)
    from_csv = read(text.getvalue().encode(), filename="rows.csv", columns=columns)
    from_book = read(written(book(rows)), filename=filename, columns=columns)
    assert (from_book.rows, from_book.texts) == (from_csv.rows, from_csv.texts)
    assert from_book.count
    assert (from_book.kind, from_book.unread) == (from_csv.kind, from_csv.unread)
    assert from_book.unread_note() == from_csv.unread_note()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (-0.5, "-0.5"),
        (0.1 + 0.2, "0.3"),
        (1e21, "1e+21"),
        (True, "TRUE"),
        (False, "FALSE"),
        (date(2026, 11, 29), "2026-11-29"),
        (datetime(2026, 11, 29, 0, 0), "2026-11-29"),  # noqa: DTZ001 - a sheet knows no zones
        (datetime(2026, 11, 29, 14, 30, 5), "2026-11-29 14:30:05"),  # noqa: DTZ001
        (time(9, 5), "09:05:00"),
        (datetime(2026, 11, 29, 14, 30, 5, 600_000), "2026-11-29 14:30:06"),  # noqa: DTZ001
        (time(14, 30, 5, 600_000), "14:30:06"),
        (timedelta(hours=14, minutes=30, seconds=5.6), "14:30:06"),
        (timedelta(hours=30, minutes=5), "30:05:00"),
        (timedelta(hours=-1, minutes=30), "-0:30:00"),
        ("007", "007"),
        ("two\nlines", "two\nlines"),
        ("返品", "返品"),
    ],
)
def test_a_cell_is_text_as_a_sheet_shows_it(read: Callable[..., Parsed], value: Any, text: str) -> None:
    [row] = read(book([HEADER, ("question", value)])).rows
    assert row["messages"][1]["content"] == text


def test_a_formula_is_its_value_and_one_without_a_value_is_refused_by_its_cell(read: Callable[..., Parsed]) -> None:
    formula = book([HEADER, ("hi", "=A1"), ("bye", "part")])
    told = refusal(read, formula)
    assert (told.code, told.place) == ("not_calculated", "sheet 'Data', row 2")
    assert "the formula in B2 has no value" in told.message
    calculated = in_sheet(formula, '<c r="B2"><f>A1</f><v />', '<c r="B2" t="str"><f>A1</f><v>greet</v>')
    assert read(calculated).rows[0]["messages"][1]["content"] == "greet"
    empty = in_sheet(formula, '<c r="B2"><f>A1</f><v />', '<c r="B2" t="str"><f>A1</f><v></v>')
    assert refusal(read, empty).code == "empty_content"


def prefixed(xml: str) -> str:
    """The same XML with its namespace under a prefix."""
    return re.sub(r"<(/?)(\w)", r"<\1x:\2", xml).replace(" xmlns=", " xmlns:x=")


def utf16(xml: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-16"?>{xml}'.encode("utf-16")


@pytest.mark.parametrize(
    "written",
    [
        lambda xml: xml.encode(),
        lambda xml: prefixed(xml).encode(),
        utf16,
        lambda xml: utf16(prefixed(xml)),
        lambda xml: xml.replace("</f>", "</f><!-- of a program -->").encode(),
        lambda xml: xml.replace("<v />", "<?of a program?>").encode(),
        lambda xml: xml.replace("<v />", " " * 200_000).encode(),
        lambda xml: xml.replace("<v />", "<!--" + "x" * 200_000 + "--><v></v>").encode(),
        lambda xml: xml.replace("<f>A1</f>", '<f t="shared" si="0" />').encode(),
        lambda xml: xml.replace('<c r="C3">', '<c t="n" r="C3" s="0">').encode(),
        lambda xml: xml.replace('<c r="C3">', '<c r="C3" t="str">').replace("<v />", "").encode(),
    ],
)
def test_a_formula_without_a_value_is_found_however_it_is_written(
    read: Callable[..., Parsed], written: Callable[[str], bytes]
) -> None:
    made = book([(*HEADER, "system"), ("hi", "greet", "be brief"), ("bye", "part", "=A1"), ("yes", "agree", None)])
    data = changed(made, lambda name, content: written(content.decode()) if name == SHEET else content)
    assert data != made
    told = refusal(read, data)
    assert (told.code, told.place) == ("not_calculated", "sheet 'Data', row 3")
    assert "the formula in C3 has no value" in told.message
    assert refusal(read, data, bad_rows="skip").code == "not_calculated"


@pytest.mark.parametrize("written", [prefixed, utf16])
def test_a_sheet_says_the_same_however_its_xml_is_written(
    read: Callable[..., Parsed], written: Callable[[str], str | bytes]
) -> None:
    def change(name: str, content: bytes) -> bytes:
        if name != SHEET:
            return content
        made = written(content.decode())
        return made if isinstance(made, bytes) else made.encode()

    assert read(changed(book(), change)).rows == read(book()).rows


def test_a_row_of_nothing_but_formulas_is_no_row_that_holds_nothing(read: Callable[..., Parsed]) -> None:
    told = refusal(read, book([HEADER, ("=A1", "=B1"), ("=A1", "=B1")]))
    assert (told.code, told.place) == ("not_calculated", "sheet 'Data', row 2")
    cover = book([("=A1",)], "Cover", Data=ROWS)
    assert len(read(cover).rows) == 12


@pytest.mark.parametrize(
    ("ranges", "row", "says"),
    [
        (["C2:C4"], 2, "the cells C2:C4 are merged"),
        (["B2:C2"], 2, "the cells B2:C2 are merged"),
        (["A5:C5", "C2:C3"], 2, "the cells C2:C3 (and 1 more ranges) are merged"),
        (["A1:B1"], 1, "the cells A1:B1 are merged"),
        (["C4:F9"], 4, "the cells C4:F9 are merged"),
    ],
)
def test_merged_cells_of_a_table_are_refused(
    read: Callable[..., Parsed], ranges: list[str], row: int, says: str
) -> None:
    made = openpyxl.load_workbook(io.BytesIO(book([(*HEADER, "system"), *[("hi", f"a{n}", "s") for n in range(4)]])))
    for cells in ranges:
        made["Data"].merge_cells(cells)
    for bad_rows in ("refuse", "skip"):
        told = refusal(read, saved(made), bad_rows=bad_rows)
        assert (told.code, told.place) == ("merged_cells", f"sheet 'Data', row {row}")
        assert says in told.message
        assert "Unmerge them" in told.message


def test_merged_cells_that_hide_nothing_of_a_table_are_let_be(read: Callable[..., Parsed]) -> None:
    made = openpyxl.load_workbook(io.BytesIO(book([("Our data", None)], "Cover", Data=[(), *ROWS])))
    made["Cover"].merge_cells("A1:D1")
    for cells in ("A1:B1", "D3:E5", "A20:B22", "B14:D14"):
        made["Data"].merge_cells(cells)
    assert len(read(saved(made)).rows) == 12


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ('<row r="3">', '<row r="2">', "repeated_row", "sheet 'Data', row 2"),
        ('<row r="3">', '<row r="1">', "repeated_row", "sheet 'Data', row 2"),
        ('<row r="5">', '<row r="-5">', "repeated_row", "sheet 'Data', row 4"),
        ('<row r="5">', '<row r="4.5">', "repeated_row", "sheet 'Data', row 4"),
        ('<row r="1">', '<row r="0">', "repeated_row", "sheet 'Data'"),
        ('<row r="3">', f'<row r="{"9" * 400}">', "too_many_rows", "sheet 'Data', row 2"),
        ('<c r="B3"', '<c r="A3"', "repeated_cell", "sheet 'Data', row 3"),
        ('<c r="A3"', '<c r="B3"', "repeated_cell", "sheet 'Data', row 3"),
        ('<c r="B3"', '<c r="B4"', "repeated_cell", "sheet 'Data', row 3"),
    ],
)
def test_what_stands_twice_is_refused(read: Callable[..., Parsed], old: str, new: str, code: str, place: str) -> None:
    told = refusal(read, in_sheet(book(), old, new))
    assert (told.code, told.place) == (code, place)
    assert "save it and upload it again" in told.message


def test_rows_and_cells_may_leave_their_numbers_out(read: Callable[..., Parsed]) -> None:
    def change(name: str, content: bytes) -> bytes:
        return re.sub(rb' r="[A-Z]*\d+"', b"", content) if name == SHEET else content

    assert read(changed(book(), change)).rows == read(book()).rows
    assert read(in_sheet(book(), '<row r="3">', '<row r="3.0">')).rows == read(book()).rows


def test_a_cell_of_much_white_space_takes_no_time(read: Callable[..., Parsed]) -> None:
    spaces = " " * 500_000
    data = in_sheet(
        book([HEADER, ("hi", "=A1"), ("bye", "part")]),
        '<c r="B2"><f>A1</f><v />',
        f'<c r="B2">{spaces}<f>A1</f>{spaces}<v>7</v>{spaces}',
    )
    began = perf_counter()
    assert read(data).rows[0]["messages"][1]["content"] == "7"
    assert perf_counter() - began < 10, "it grows with the square of the white space"


def test_the_first_visible_sheet_with_rows_is_read_and_named(read: Callable[..., Parsed]) -> None:
    made = openpyxl.load_workbook(io.BytesIO(book([("Our data of 2026",)], "Cover", Hidden=ROWS, Data=ROWS, Old=ROWS)))
    made["Hidden"].sheet_state = "hidden"
    parsed = read(saved(made))
    assert (parsed.format, len(parsed.rows)) == ("XLSX, sheet 'Data'", 12)
    assert parsed.left_out == "Of the workbook's sheets 'Data' was read, and not: Cover, Old."
    assert read(book()).left_out is None


@pytest.mark.parametrize(
    ("rows", "code", "place", "says"),
    [
        ([HEADER, ("hi", "greet"), (), ("bye", None)], "empty_content", "sheet 'Data', row 4", "intent: is empty"),
        ([HEADER, (None, "greet")], "empty_content", "sheet 'Data', row 2", "message: is empty"),
        ([HEADER, ("hi", "greet", None, "more")], "wrong_columns", "sheet 'Data', row 2", "D2 holds 'more'"),
        ([("foo", "bar"), ("a", "b")], "unknown_column", "sheet 'Data', row 1", "The columns are: foo, bar"),
        ([(), ("text", "message"), ("a", "b")], "ambiguous_columns", "sheet 'Data', row 2", "columns 1 ('text') and 2"),
        ([HEADER, ("hi", "#REF!")], "cell_error", "sheet 'Data', row 2", "intent: holds the error #REF!"),
        ([HEADER, ("x" * 30_000,) * 40], "wrong_columns", "sheet 'Data', row 2", "AN2 holds 'xxx"),
        ([HEADER], "empty_file", "", "no visible sheet has a header and a row"),
        ([], "empty_file", "", "no visible sheet has a header and a row"),
    ],
)
def test_what_is_wrong_is_named_by_sheet_row_and_column(
    read: Callable[..., Parsed], rows: list[tuple[Any, ...]], code: str, place: str, says: str
) -> None:
    told = refusal(read, book(rows))
    assert (told.code, told.place) == (code, place)
    assert says in told.message


def test_bad_rows_of_a_sheet_are_left_out_by_their_numbers(read: Callable[..., Parsed]) -> None:
    data = book([HEADER, ("a", "x"), ("b", None), ("c", "#N/A"), ("d", "y")], Other=[])
    parsed = read(data, bad_rows="skip")
    assert [row["messages"][0]["content"] for row in parsed.rows] == ["a", "d"]
    assert parsed.left_out == (
        "Of the workbook's sheets 'Data' was read, and not: Other. 2 bad rows were left out: "
        "row 3: intent: is empty. Fill it in or remove the row; "
        "row 4: intent: holds the error #N/A. Correct the formula or its row."
    )
    assert "1 more row is bad too" in refusal(read, data).message


@pytest.mark.parametrize("error", ["#FIELD!", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!", "#PYTHON!", "#N/A"])
def test_a_cell_is_an_error_by_its_kind_and_not_by_its_text(read: Callable[..., Parsed], error: str) -> None:
    said = in_sheet(book([HEADER, ("hi", "greet"), ("bye", "part")]), "greet", error)
    assert read(said).rows[0]["messages"][1]["content"] == error
    inline = f'<c r="B2" t="inlineStr"><is><t>{error}</t></is></c>'
    told = refusal(read, in_sheet(said, inline, f'<c r="B2" t="e"><v>{error}</v></c>'))
    assert told.code == "cell_error"
    assert f"intent: holds the error {error}" in told.message


def test_a_date_that_no_calendar_has_is_an_error_where_it_is_read(read: Callable[..., Parsed]) -> None:
    dated = book([(*HEADER, "at"), *[("hi", f"a{n}", date(2026, 1, 1)) for n in range(3)]])
    data = changed(dated, lambda name, content: content.replace(b"<v>46023</v>", b"<v>4602300000</v>"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read(data).rows) == 3
        told = refusal(read, data, columns={"text": "message", "label": "at"})
    assert (told.code, told.place) == ("cell_error", "sheet 'Data', row 2")


def test_an_error_in_a_column_that_is_not_read_stops_nobody(read: Callable[..., Parsed]) -> None:
    assert len(read(book([(*HEADER, "price"), ("hi", "greet", "#N/A")])).rows) == 1


def test_a_workbook_is_no_document(read: Callable[..., Parsed]) -> None:
    told = refusal(read, book(), purpose="assistants")
    assert told.code == "no_document"
    assert "CSV or Markdown" in told.message


@pytest.mark.parametrize("purpose", ["evals", "batch"])
def test_where_json_lines_are_wanted_a_workbook_is_told_so(tmp_path: Path, purpose: str) -> None:
    (tmp_path / "upload").write_bytes(book())
    with pytest.raises(FormatError) as caught:
        check_kept(Source(tmp_path / "upload", "rows.xlsx"), purpose)
    assert caught.value.code == "no_jsonl"
    assert f"'{purpose}' files are JSONL" in caught.value.message


def test_macros_and_links_to_other_workbooks_are_not_looked_at(read: Callable[..., Parsed]) -> None:
    reference = f'<externalReference xmlns:r="{RELATIONS}" r:id="rId99"/>'
    link = f'<Relationship Id="rId99" Type="{RELATIONS}/externalLink" Target="externalLinks/externalLink1.xml"/>'

    def with_a_link(name: str, content: bytes) -> bytes:
        if name == "xl/workbook.xml":
            return content.replace(
                b"</workbook>", f"<externalReferences>{reference}</externalReferences></workbook>".encode()
            )
        if name == "xl/_rels/workbook.xml.rels":
            return content.replace(b"</Relationships>", f"{link}</Relationships>".encode())
        return content

    parts = {"xl/externalLinks/externalLink1.xml": b"<no XML", "xl/vbaProject.bin": bytes(2000)}
    data = changed(book(), with_a_link, **parts)
    with pytest.raises(SyntaxError):  # where links are followed
        openpyxl.load_workbook(io.BytesIO(data), read_only=True)
    assert len(read(data, filename="rows.xlsm").rows) == 12


def test_a_password_is_refused_with_what_to_do(read: Callable[..., Parsed]) -> None:
    compound = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1024) + "EncryptedPackage".encode("utf-16-le") + bytes(512)
    told = refusal(read, compound)
    assert told.code == "encrypted"
    assert "Save it without one" in told.message
    locked = bytearray(book())
    at = locked.index(b"PK\x01\x02")
    locked[at + 8] |= 1
    assert refusal(read, bytes(locked)).code == "encrypted"


@pytest.mark.parametrize(
    ("data", "filename", "code"),
    [
        (book()[:-300], "rows.xlsx", "invalid_workbook"),
        (b"PK\x03\x04 rest", "rows.xlsx", "invalid_workbook"),
        (b"PK\x03\x04 rest", "rows.jsonl", "unsupported_format"),
        (changed(book(), lambda _, content: content, **{"xl/workbook.bin": b""}), "rows.xlsb", "unsupported_format"),
        (changed(book(), lambda name, content: b"" if name == SHEET else content), "rows.xlsx", "invalid_workbook"),
        (
            changed(book(), lambda name, content: b"" if "Content_Types" in name else content),
            "rows.xlsx",
            "invalid_workbook",
        ),
    ],
)
def test_a_damaged_workbook_is_refused_as_one(
    read: Callable[..., Parsed], data: bytes, filename: str, code: str
) -> None:
    assert refusal(read, data, filename=filename).code == code


def test_what_inflates_to_too_much_is_refused_before_it_is_inflated(
    read: Callable[..., Parsed], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = changed(book(), lambda _, content: content, **{"xl/media/image1.png": bytes(2**20)})
    assert len(bomb) < 2**16
    monkeypatch.setattr(workbook, "MAX_INFLATED_BYTES", 2**20)
    with monkeypatch.context() as watched:

        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("a part was opened")

        watched.setattr(zipfile.ZipFile, "open", never)
        told = refusal(read, bomb)
    assert told.code == "too_large"
    assert "1048576 bytes" in told.message
    assert len(read(book()).rows) == 12


def test_a_part_that_holds_more_than_it_says_is_not_read_on(read: Callable[..., Parsed]) -> None:
    data = bytearray(book())
    at = data.index(b"PK\x01\x02", data.rindex(SHEET.encode()) - 46)
    size = int.from_bytes(data[at + 24 : at + 28], "little")
    data[at + 24 : at + 28] = (size // 2).to_bytes(4, "little")
    assert refusal(read, bytes(data)).code == "invalid_workbook"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("which", [SHEET, "xl/media/image1.png"])
def test_a_part_that_zipfile_unpacks_unbounded_is_refused(read: Callable[..., Parsed], method: int, which: str) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book())) as old, zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as new:
        for name in {*old.namelist(), which}:
            content = old.read(name) if name in old.namelist() else b"0" * 1000
            new.writestr(name, content, method if name == which else None)
    told = refusal(read, body.getvalue())
    assert told.code == "unsupported_format"
    assert "save it as .xlsx" in told.message


def test_parts_that_are_not_packed_are_read(read: Callable[..., Parsed]) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book())) as old, zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert len(read(body.getvalue()).rows) == 12


def test_one_long_text_in_every_cell_is_too_large(read: Callable[..., Parsed], monkeypatch: pytest.MonkeyPatch) -> None:
    data = shared(book([HEADER, *[("x" * 30_000, "a")] * 100]))
    assert len(data) < 2**15
    monkeypatch.setattr(worksheet, "MAX_CHARACTERS", 2**20)
    told = refusal(read, data)
    assert (told.code, told.place) == ("too_large", "sheet 'Data', row 36")


def test_what_a_sheet_says_of_its_size_is_not_believed(read: Callable[..., Parsed]) -> None:
    narrow = in_sheet(book(), '<dimension ref="A1:B13" />', '<dimension ref="A1:A2"/>')
    assert len(read(narrow).rows) == 12
    wide = in_sheet(book(), '<dimension ref="A1:B13" />', '<dimension ref="A1:XFD1048576"/>')
    assert len(read(wide).rows) == 12
    far = in_sheet(book(), '<row r="13">', '<row r="99999999999">')
    assert refusal(read, far).code == "too_many_rows"


NOT_PARSED = {"docProps/app.xml", "xl/theme/theme1.xml", "_rels/.rels"}


@pytest.mark.parametrize("part", zipfile.ZipFile(io.BytesIO(shared(book()))).namelist())
@pytest.mark.parametrize("entity", ['"text"', 'SYSTEM "file:///etc/hostname"'])
def test_an_entity_is_refused_wherever_it_stands(read: Callable[..., Parsed], part: str, entity: str) -> None:
    def with_entity(name: str, content: bytes) -> bytes:
        if name != part:
            return content
        at = content.index(b"?>") + 2 if content.startswith(b"<?xml") else 0
        return content[:at] + f"<!DOCTYPE x [<!ENTITY a {entity}>]>".encode() + content[at:]

    data = changed(shared(book()), with_entity)
    if part in NOT_PARSED:
        assert len(read(data).rows) == 12
        return
    told = refusal(read, data)
    assert told.code == "invalid_workbook"
    assert "EntitiesForbidden" in told.message


def test_the_xml_parser_of_tests_is_the_one_of_the_parser() -> None:
    assert PARSER_ENVIRONMENT["OPENPYXL_LXML"] == "False"
    assert (openpyxl.LXML, openpyxl.DEFUSEDXML) == (False, True)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_broken_in_a_workbook_is_a_fault_of_the_file(read: Callable[..., Parsed], seed: int) -> None:
    chance = random.Random(seed)

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith((".xml", ".rels")) or chance.random() < 0.6:
            return content
        at = chance.randrange(len(content))
        return content[:at] + chance.randbytes(chance.randrange(1, 9)) + content[at + chance.randrange(40) :]

    data = bytearray(changed(book(), change))
    if seed % 3 == 0:
        for _ in range(5):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
    outcome = "read"
    try:
        read(bytes(data))
    except FormatError as error:
        outcome = error.message
    assert 0 < len(outcome) < 1000


async def test_a_workbook_becomes_a_dataset_whose_card_names_the_sheet(space: Space) -> None:
    app = build(space.settings(Settings, "ingest"))
    rows = [HEADER, *((f"row {n}", f"label_{n % 3}") for n in range(60))]
    bad = [HEADER, ("hi", None)]
    key = space.bearer("ingest", "tenant_a")
    async with (
        running(app) as url,
        space.probe("datasets") as seen,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
        httpx2.AsyncClient(base_url=url, headers=space.headers("ingest", "tenant_a")) as http,
    ):
        await client.files.create(file=("rows.xlsx", book([("Cover",)], "Cover", Data=rows)), purpose="user_data")
        prepared = (await eventually(lambda: seen.of(DatasetPrepared)))[0]
        assert (prepared.task, prepared.labels) == ("classification", 3)
        assert prepared.rows.train + prepared.rows.validation + prepared.rows.heldout == 60
        [shown] = (await http.get("/v1/datasets")).json()["data"]
        assert "- Format: XLSX, sheet 'Data'; task: classification" in shown["card"]
        file = await client.files.create(file=("bad.xlsx", book(bad)), purpose="fine-tune")
        refused = (await eventually(lambda: seen.of(DatasetRejected)))[0]
        assert (refused.file_id, refused.line) == (file.id, 2)
        assert refused.message.startswith("bad.xlsx, sheet 'Data', row 2: intent: is empty.")
