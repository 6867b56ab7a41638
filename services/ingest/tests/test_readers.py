"""What each kind of upload is recognised as, and what its owner is told when it is wrong."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.cleaning import answer_of
from ingest.readers import BadRows, FormatError, Parsed, Source, parse
from ingest.readers.json_lines import check_jsonl
from schemas.artifacts import ChatRow


def chat(question: str, answer: str = "yes") -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]},
        ensure_ascii=False,
    )


GOOD = [chat(f"q{n}") for n in range(12)]


def read(
    data: bytes | str,
    *,
    filename: str = "f.jsonl",
    columns: dict[str, str] | None = None,
    purpose: str = "user_data",
    bad_rows: BadRows = "refuse",
) -> Parsed:
    with tempfile.NamedTemporaryFile() as upload:
        upload.write(data.encode() if isinstance(data, str) else data)
        upload.flush()
        source = Source(Path(upload.name), filename)
        return parse(source, columns=columns or {}, purpose=purpose, bad_rows=bad_rows)


def jsonl(*rows: Any) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def table(*rows: Sequence[str], delimiter: str = ",") -> str:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter).writerows(rows)
    return written.getvalue()


def said(row: ChatRow) -> list[str]:
    return [message["content"] for message in row["messages"]]


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        (b"", "empty_file", None),
        (b" \n\n", "empty_file", None),
        ("\n".join([*GOOD[:2], "こんにちは"]).encode("shift_jis"), "not_utf8", 3),
        ("\n".join([GOOD[0], GOOD[1], GOOD[2][:-4], *GOOD]).encode(), "invalid_json", 3),
        ("\n".join([GOOD[0], "[1]"]).encode(), "not_an_object", 2),
        ("\n".join([GOOD[0], GOOD[1].replace("user", "customer")]).encode(), "wrong_role", 2),
        ("\n".join([GOOD[0], chat("q", " ")]).encode(), "empty_content", 2),
        (b'{"messages":[{"role":"user","content":"x"}]}', "no_assistant", 1),
        (b'{"messages":[{"role":"assistant","content":"x"}]}', "no_user", 1),
        (b'{"messages":[]}', "no_messages", 1),
        (b'{"messages":["x"]}', "bad_message", 1),
        (b'{"foo": 1}', "unknown_fields", 1),
        ("\n".join([*GOOD[:4], '{"prompt":"a","completion":"b"}']).encode(), "mixed_formats", 5),
        (GOOD[0].encode() + b"\n" + GOOD[1].encode() + b"\x00", "nul_byte", 2),
        (b'{"text":"a\\u0000b"}', "nul_byte", 1),
        (b'{"text":"\\ud800"}', "lone_surrogate", 1),
        (b'{"text":' + b"[" * 80 + b"]" * 80 + b"}", "too_deep", 1),
        (b'{"text":"' + b"a" * 1_100_000 + b'"}', "line_too_long", 1),
        (('{"text":"' + "あ" * 400_000 + '"}').encode(), "line_too_long", 1),
        (b"PK\x03\x04 rest", "unsupported_format", None),
        (b"\x1f\x8b rest", "unsupported_format", None),
        (b"%PDF-1.7", "unsupported_format", None),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, "unsupported_format", None),
        (b"[" + GOOD[0].encode() + b"]", "json_array", 1),
    ],
)
def test_bad_jsonl_says_what_and_where(data: bytes, code: str, line: int | None) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert (caught.value.code, caught.value.line) == (code, line), caught.value.message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04 rest", "the file inside it, or what the document says as text, Markdown, JSONL, CSV or XLSX."),
        (b"PK\x05\x06 rest", "Upload the file inside it."),
        (b"%PDF-1.7", "Upload it as text, Markdown, JSONL, CSV or XLSX."),
    ],
)
def test_of_what_is_no_text_its_owner_is_told_what_to_upload_instead(data: bytes, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.message.endswith(says)


def test_a_file_kept_as_it_is_is_held_to_the_same_lines() -> None:
    assert check_jsonl('{"a": 1}\n\n{"a": 2}\n') == 2
    assert check_jsonl("\n") == 0
    with pytest.raises(FormatError) as caught:
        check_jsonl('{"a": 1}\n{"text":"' + "あ" * 400_000 + '"}')
    assert (caught.value.code, caught.value.line) == ("line_too_long", 2)


def test_further_bad_lines_are_counted() -> None:
    with pytest.raises(FormatError, match="2 more lines are bad"):
        read("\n".join([GOOD[0], "{", "{", "{"]).encode())


@pytest.mark.parametrize(
    ("data", "filename", "columns", "code"),
    [
        (b"message,intent\nhi,greet\n", "a.csv", {"text": "body"}, "unknown_column"),
        (b"foo,bar\n1,2\n", "a.csv", {}, "unknown_column"),
        (b'text,label\n"hi,greet\n', "a.csv", {}, "invalid_csv"),
        (b"text,label\nhi,greet,extra\n", "a.csv", {}, "wrong_columns"),
        (b"text,label\n", "a.csv", {}, "empty_file"),
    ],
)
def test_bad_csv(data: bytes, filename: str, columns: dict[str, str], code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data, filename=filename, columns=columns)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "filename", "columns", "kind", "first"),
    [
        ("\n".join(GOOD).encode(), "f", {}, "rows", "yes"),
        (b"\xef\xbb\xbf" + GOOD[0].encode(), "f", {}, "rows", "yes"),
        (b'{"instruction":"Do","input":"this","output":"done"}', "f", {}, "rows", "done"),
        (b'{"prompt":"a","completion":"b"}', "f", {}, "rows", "b"),
        (b'{"text":"a","label":3}', "f", {}, "rows", "3"),
        (b"text,label\nhi,greet\n", "x.csv", {}, "rows", "greet"),
        (b"message;intent\nhi;greet\n", "x.csv", {}, "rows", "greet"),
        (b"a,b\nhi,greet\n", "x.csv", {"text": "a", "label": "b"}, "rows", "greet"),
        ('text,label\n"雨の日, 傘",other\n'.encode(), "x.csv", {}, "rows", "other"),
    ],
)
def test_good_rows(data: bytes, filename: str, columns: dict[str, str], kind: str, first: str) -> None:
    parsed = read(data, filename=filename, columns=columns)
    assert parsed.kind == kind
    assert answer_of(parsed.rows[0]) == first


def test_rows_without_answers_and_documents() -> None:
    assert read(b'{"text":"a"}').kind == "unlabelled"
    assert read(b"text\nhello\n", filename="x.csv").kind == "unlabelled"
    assert read("# 案内\n\n本文, です".encode(), filename="x.md").format == "markdown"
    assert read(b"plain words, with commas", filename="x.txt").kind == "document"
    assert read(GOOD[0].encode(), purpose="assistants").kind == "document"


FORMATS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "instruction": {"instruction": "q", "input": "i", "output": "a", "system": "s"},
    "prompt/completion": {"prompt": "q", "completion": "a"},
    "text/label": {"text": "q", "label": "a"},
    "text": {"text": "q"},
}
FLAT = {name: row for name, row in FORMATS.items() if name not in ("chat", "ShareGPT")}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("beside", ["tools", "id", "reward", "parallel_tool_calls"])
def test_what_is_not_read_of_a_row_is_named_and_keeps_rows_apart(name: str, beside: str) -> None:
    rows = [FORMATS[name] | {beside: value} for value in ("x", "y", ["x"], None, "", [], " ")]
    parsed = read(jsonl(*rows))
    assert parsed.format == f"{name} JSONL"
    assert parsed.unread_note() == f"Not read, in so many rows: {beside!r} (3)."
    assert len(set(parsed.unread)) == 4
    assert parsed.unread[3:] == [""] * 4


@pytest.mark.parametrize("name", FLAT)
def test_what_is_not_read_of_a_table_is_named_and_keeps_rows_apart(name: str) -> None:
    header, row = list(FLAT[name]), list(FLAT[name].values())
    text = table(
        [*header, "reward", "", "reward"], *([*row, *more] for more in (("1", "", ""), ("2", "x", "y"), [" "] * 3))
    )
    parsed = read(text, filename="f.csv")
    unnamed, twice = f"column {len(header) + 2}", f"column {len(header) + 3}"
    assert parsed.unread_note() == f"Not read, in so many rows: 'reward' (2), '{unnamed}' (1), '{twice}' (1)."
    assert len(set(parsed.unread)) == 3


@pytest.mark.parametrize("name", FLAT)
def test_a_table_says_what_the_same_rows_say_as_json(name: str) -> None:
    rows = [FLAT[name], FLAT[name] | {optional: "" for optional in ("input", "system") if optional in FLAT[name]}]
    as_table = read(table(list(rows[0]), *(list(row.values()) for row in rows)), filename="f.csv")
    as_json = read(jsonl(*rows))
    assert as_table.rows == as_json.rows
    assert (as_table.kind, as_table.unread_note()) == (as_json.kind, as_json.unread_note()) == (as_json.kind, None)


def test_all_of_an_instruction_row_is_read() -> None:
    rows = [{"instruction": "Do", "input": value, "output": "done"} for value in ("this", "", " ", None)]
    parsed = read(jsonl(*rows, {"instruction": "Do", "output": "done"}, {**rows[0], "system": "Be brief."}))
    assert [said(row) for row in parsed.rows] == [
        ["Do\n\nthis", "done"],
        *[["Do", "done"]] * 4,
        ["Be brief.", "Do\n\nthis", "done"],
    ]
    rendered = read(
        table(("instruction", "input", "output", "text"), ("Do", "", "done", "### Instruction…")), filename="a.csv"
    )
    assert said(rendered.rows[0]) == ["Do", "done"]
    assert "'text' (1)" in str(rendered.unread_note())


def test_a_sharegpt_row_is_a_conversation() -> None:
    turns = [("system", "s"), ("human", "q"), ("gpt", "a"), ("user", "r"), ("assistant", "b")]
    parsed = read(
        jsonl(
            {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]},
            {"system": "s", "conversations": [{"role": role, "content": text} for role, text in turns[1:3]]},
            {"conversations": [{"from": "human", "value": "q", "id": 1}, {"from": "gpt", "value": "a", "weight": 0}]},
        )
    )
    assert [message["role"] for message in parsed.rows[0]["messages"]] == ["system", *("user", "assistant") * 2]
    assert [said(row) for row in parsed.rows] == [["s", "q", "a", "r", "b"], ["s", "q", "a"], ["q", "a"]]
    assert parsed.rows[2]["messages"][1]["weight"] == 0
    assert parsed.unread_note() == "Not read, in so many rows: 'conversations[].id' (1)."


CALL = {"id": "call_0", "type": "function", "function": {"name": "renew", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"role": "assistant", "content": "One moment.", "tool_calls": [CALL]}, "messages[1].tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "messages[1].tool_calls"),
        ({"role": "assistant", "content": None, "function_call": CALL["function"]}, "messages[1].function_call"),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_tool_call_is_refused_by_its_name(row: dict[str, Any], where: str, last: bool) -> None:
    after = [] if last else [{"role": "tool", "content": "done"}, {"role": "assistant", "content": "Renewed."}]
    with pytest.raises(FormatError, match="tool call cannot be learned") as caught:
        read(jsonl({"messages": [{"role": "user", "content": "q"}, row, *after], "tools": [{"type": "function"}]}))
    assert (caught.value.code, where in caught.value.message) == ("tool_calls", True)
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": "{}"}, {"from": "gpt", "value": "a"}]
    with pytest.raises(FormatError, match=r"conversations\[1\].from: a tool call"):
        read(jsonl({"conversations": turns}))


def test_parts_of_messages_that_are_not_read_are_named_and_keep_rows_apart() -> None:
    parts = [{"type": "text", "text": "q", "cache_control": {"type": "ephemeral"}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": content, "name": name},
                {"role": "assistant", "content": "a", "tool_calls": []},
            ]
        }
        for content, name in (("q", "ann"), ("q", "ben"), (parts, None))
    ]
    parsed = read(jsonl(*rows))
    assert parsed.unread_note() == (
        "Not read, in so many rows: 'messages[].name' (2), 'messages[].content[].cache_control' (1)."
    )
    assert len(set(parsed.unread)) == 3


def test_a_note_on_unread_fields_stays_short() -> None:
    parsed = read(jsonl(*({"text": "q", "label": "a", f"{number}-{'x' * 500}": 1} for number in range(1500))))
    assert len(parsed.unread_in) == 1000
    assert len(str(parsed.unread_note())) < 1000


@pytest.mark.parametrize("rows_left", [",\n", ",,,\n", '"",""\n', " , \n", "\n", "\t,\u00a0\n"])
def test_what_a_spreadsheet_leaves_behind_is_no_row(rows_left: str) -> None:
    text = f"{rows_left}text,label\r\nq,a\n{rows_left}r,b,\n{rows_left * 3}"
    parsed = read(text, filename="f.csv")
    assert [said(row) for row in parsed.rows] == [["q", "a"], ["r", "b"]]
    with pytest.raises(FormatError) as caught:
        read(text + "only one\n", filename="f.csv")
    assert caught.value.line == text.count("\n") + 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheet_may_say_how_its_fields_are_separated(delimiter: str) -> None:
    text = table(("text", "label"), ("a, b; c\td", "e"), delimiter=delimiter)
    for written in (text, f"sep={delimiter}\r\n{text}", f'"SEP={delimiter}"\n{text}'):
        assert said(read(written, filename="f.csv").rows[0]) == ["a, b; c\td", "e"]
    with pytest.raises(FormatError) as caught:
        read(f"sep={delimiter}\n{text}" + '"open', filename="f.csv")
    assert caught.value.line == 4


@pytest.mark.parametrize(
    ("header", "columns", "both"),
    [
        ("text,message,label", {}, "the columns 1 ('text') and 2 ('message') could both be the text"),
        ("text,intent,other,label", {}, "the columns 2 ('intent') and 4 ('label') could both be the label"),
        ("Text,text,label", {}, "the columns 1 ('Text') and 2 ('text') could both be the text"),
        ("text,label,text", {}, "the columns 1 ('text') and 3 ('text') have the same name"),
        ("a,label,a", {"text": "a"}, "the columns 1 ('a') and 3 ('a') have the same name"),
        ("prompt,completion,response", {}, "the columns 2 ('completion') and 3 ('response') could both be the label"),
        ("instruction,input,context,output", {}, "the columns 2 ('input') and 3 ('context') could both be the input"),
        ("text,label,system,System", {}, "the columns 3 ('system') and 4 ('System') could both be the system"),
    ],
)
def test_columns_that_could_be_the_same_are_refused_with_both_places(
    header: str, columns: dict[str, str], both: str
) -> None:
    with pytest.raises(FormatError) as caught:
        read(f"{header}\n{'x,' * header.count(',')}x\n", filename="f.csv", columns=columns)
    assert caught.value.code == "ambiguous_columns"
    assert caught.value.message.startswith(both)


def test_fields_that_could_be_the_same_are_refused_with_both_names() -> None:
    for row in ({"text": "q", "label": "a", "intent": "b"}, {"messages": [], "conversations": []}):
        with pytest.raises(FormatError, match="could both be") as caught:
            read(jsonl(row))
        assert caught.value.code == "ambiguous_fields"


def test_the_sender_says_which_column_or_field_is_meant() -> None:
    row = {"text": "q", "message": "r", "label": "a", "intent": "b", "rules": "s"}
    columns = {"text": "message", "label": "intent", "system": "rules"}
    for parsed in (
        read(table(list(row), list(row.values())), filename="f.csv", columns=columns),
        read(jsonl(row), columns=columns),
    ):
        assert said(parsed.rows[0]) == ["s", "r", "b"]
        assert parsed.unread_note() == "Not read, in so many rows: 'text' (1), 'label' (1)."
    some = read(jsonl(row, {"message": "r", "intent": "b"}), columns=columns)
    assert [said(one) for one in some.rows] == [["s", "r", "b"], ["r", "b"]]
    with pytest.raises(FormatError, match=r"there is no field 'body'\. The fields are: text, message, label"):
        read(jsonl(row), columns={"text": "body"})


def test_beside_a_prompt_and_its_completion_a_class_is_not_the_answer() -> None:
    parsed = read(jsonl({"prompt": "q", "completion": "a", "category": "c", "text": "qa"}))
    assert said(parsed.rows[0]) == ["q", "a"]
    assert parsed.unread_note() == "Not read, in so many rows: 'category' (1), 'text' (1)."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"input": {}, "preferred_output": [], "non_preferred_output": []},
    ],
)
def test_preferences_are_refused_as_such(row: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        read(jsonl(row))
    assert caught.value.code == "preferences"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('text,label\n"hi,greet\n', 2),
        ('text,label\na,b\n"hi,greet\nc,d\ne,f\n', 3),
        ('text,label\n"a\nb",c\n"d\ne","f\ng,h\n', 5),
        ('text,label\na,"b\nc,"d"\ne,f\n', 2),
        ('text,label\r\na,b\r\n"hi,greet\r\nc,"d"\r\n', 3),
        ('"text,label\na,b\n', 1),
        ('text,label\n"say ""hi""","x\n' + "a,b\n" * 50, 2),
        ('text,label\na,b\n"' + "long,\n" * 300_000, 3),
        ('\n\ntext,label\n\n"hi,greet\n', 5),
    ],
)
def test_a_quote_that_stays_open_is_named_by_its_first_line(text: str, line: int) -> None:
    with pytest.raises(FormatError) as caught:
        read(text, filename="f.csv")
    assert (caught.value.code, caught.value.line) == ("invalid_csv", line), caught.value.message


def test_a_bad_row_of_a_table_is_named_by_the_line_it_begins_on() -> None:
    with pytest.raises(FormatError) as caught:
        read('text,label\n"a\nb",c\n"d\ne\nf"\ng\n', filename="f.csv")
    assert caught.value.line == 4
    assert "1 more line is bad too" in caught.value.message


BRACES = [
    "{{< notice >}}\n\n# Opening hours",
    "{draft of 3 May}\nThe desk opens at nine.",
    "[a link](x), and a list",
    "{",
    '{"a": 1}',
]


@pytest.mark.parametrize("text", BRACES)
@pytest.mark.parametrize("filename", ["page.md", "PAGE.MD", "notes.txt", "page.html", "page.markdown"])
def test_a_document_by_its_name_is_one_however_it_begins(text: str, filename: str) -> None:
    parsed = read(text, filename=filename)
    assert (parsed.kind, parsed.text) == ("document", text)


@pytest.mark.parametrize("text", BRACES[:3])
def test_a_brace_does_not_make_rows_where_no_name_says_so(text: str) -> None:
    assert read(text, filename="notes").kind == "document"


@pytest.mark.parametrize("text", BRACES)
def test_what_a_file_is_for_outranks_how_it_begins(text: str) -> None:
    assert read(text, purpose="assistants").kind == "document"
    for filename in ("a.md", "a.txt", "a.jsonl", "a"):
        with pytest.raises(FormatError):
            read(text, filename=filename, purpose="fine-tune")
    assert read(GOOD[0], filename="rows.txt", purpose="fine-tune").kind == "rows"


def test_a_table_by_its_name_is_one_however_it_begins() -> None:
    assert said(read('text,"{label}"\nq,a\n', filename="a.csv", columns={"label": "{label}"}).rows[0]) == ["q", "a"]
    assert said(read("{text},label\nq,a\n", filename="a.csv", columns={"text": "{text}"}).rows[0]) == ["q", "a"]


def test_a_long_line_without_a_name_is_a_document() -> None:
    assert read("word " * 100_000, filename="notes").kind == "document"


BAD = ["{", '{"messages": []}', GOOD[0].replace("user", "guest"), '{"prompt": "a", "completion": "b"}', "[1]"]


def test_bad_rows_are_left_out_where_the_sender_says_so() -> None:
    parsed = read("\n".join([*GOOD[:3], *BAD, *GOOD[3:]]), bad_rows="skip")
    assert len(parsed.rows) == 12
    note = str(parsed.left_out)
    assert note.startswith("5 bad rows were left out: line 4: not valid JSON at column 2")
    assert all(f"line {number}: " in note for number in range(4, 9))
    text = table(("text", "label"), ("q", "a"), ("r",), ("s", ""), ("t", "b"))
    assert str(read(text, filename="f.csv", bad_rows="skip").left_out) == (
        "2 bad rows were left out: line 3: the header has 2 fields and this line 1. Check the quotes; "
        "line 4: label: is empty. Fill it in or remove the row."
    )


def test_many_bad_rows_are_counted_and_the_note_stays_short() -> None:
    parsed = read("\n".join([GOOD[0], *["{" + "x" * 500] * 20_000]), bad_rows="skip")
    assert parsed.left_out is not None
    assert parsed.left_out.startswith("20000 bad rows were left out: line 2: ")
    assert parsed.left_out.endswith(f"; lines {', '.join(map(str, range(7, 57)))} and 19945 more.")
    assert len(parsed.left_out) < 2000


@pytest.mark.parametrize("bad_rows", ["refuse", "skip"])
def test_a_file_of_bad_rows_or_with_an_open_quote_is_refused_whatever_its_sender_says(bad_rows: BadRows) -> None:
    for text, filename in (
        ("\n".join(BAD[:3]), "f.jsonl"),
        ('text,label\nq,a\n"open,b\n', "f.csv"),
        ("text,label\nq\n", "f.csv"),
    ):
        with pytest.raises(FormatError):
            read(text, filename=filename, bad_rows=bad_rows)


def test_a_field_that_stands_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="the field 'label' stands twice") as caught:
        read('{"text": "q", "label": "a", "label": "b"}')
    assert caught.value.code == "named_twice"


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert said(read(jsonl({"prompt": r"\u0000 and \\u0000", "completion": "a"})).rows[0])[0] == r"\u0000 and \\u0000"
    with pytest.raises(FormatError, match="NUL"):
        read(r'{"prompt": "\\\u0000", "completion": "a"}')


HUGE = "x" * 300_000


@pytest.mark.parametrize(
    ("text", "filename", "columns"),
    [
        (",".join(f"column {number}" for number in range(200_000)) + "\n", "f.csv", {}),
        (f"{HUGE},{HUGE}\n", "f.csv", {}),
        (f"{HUGE},{HUGE}\n", "f.csv", {"text": HUGE}),
        (f"{HUGE},b\n", "f.csv", {"text": "b" * 9000}),
        (f"text,{HUGE}\nq,\n", "f.csv", {"label": HUGE}),
        (jsonl({"messages": [{"role": HUGE, "content": "x"}]}), "f.jsonl", {}),
        (jsonl({"messages": [{"role": [HUGE] * 3, "content": "x"}]}), "f.jsonl", {}),
        (jsonl({"conversations": [{"from": HUGE, "value": "x"}]}), "f.jsonl", {}),
        (jsonl({HUGE: 1}), "f.jsonl", {}),
        (jsonl({f"{number}": 1 for number in range(90_000)}), "f.jsonl", {}),
        (jsonl({"a" * 300_000: 1}), "f.jsonl", {"text": "b" * 9000}),
        (f'{{"{HUGE}": 1, "{HUGE}": 2}}', "f.jsonl", {}),
        ("9" * 300_000, "f.jsonl", {}),
        (f'{{"text": {"9" * 5000}}}', "f.jsonl", {}),
    ],
)
@pytest.mark.parametrize("bad_rows", ["refuse", "skip"])
def test_a_message_quotes_little_of_what_was_sent(
    text: str, filename: str, columns: dict[str, str], bad_rows: BadRows
) -> None:
    with pytest.raises(FormatError) as caught:
        read(text, filename=filename, columns=columns, bad_rows=bad_rows)
    assert len(caught.value.message) < 1000, caught.value.message[:2000]


def test_brackets_without_an_end_are_a_fault_of_the_file() -> None:
    with pytest.raises(FormatError):
        read("[" * 200_000, filename="deep.jsonl")
