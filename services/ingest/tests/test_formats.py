"""What each kind of upload is recognised as, and what its owner is told when it is wrong."""

from __future__ import annotations

import json

import pytest

from ingest.cleaning import answer_of, question_key, split, task_of
from ingest.formats import FormatError, check_jsonl, decode, parse


def chat(question: str, answer: str = "yes") -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]},
        ensure_ascii=False,
    )


GOOD = [chat(f"q{n}") for n in range(12)]


def read(data: bytes, *, filename: str = "f.jsonl", columns: dict[str, str] | None = None, purpose: str = "user_data"):
    return parse(decode(data), filename=filename, columns=columns or {}, purpose=purpose)


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
        (b"[" + GOOD[0].encode() + b"]", "json_array", 1),
    ],
)
def test_bad_jsonl_says_what_and_where(data: bytes, code: str, line: int | None) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert (caught.value.code, caught.value.line) == (code, line), caught.value.message


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


def rows(labels: int, each: int) -> list[dict]:
    return [
        json.loads(chat(f"question {label} {number}", f"label_{label}"))
        for label in range(labels)
        for number in range(each)
    ]


def test_the_split_is_stratified_and_repeatable() -> None:
    data = rows(12, 32)
    first = split(data, validation_share=0.05, heldout_share=0.15, seed="s")
    again = split(data[::-1], validation_share=0.05, heldout_share=0.15, seed="s")
    assert first == again
    assert (len(first.train), len(first.validation), len(first.heldout)) == (300, 24, 60)
    for part, each in ((first.validation, 2), (first.heldout, 5)):
        counts = {label: sum(answer_of(row) == label for row in part) for label in first.labels}
        assert set(counts.values()) == {each}


def test_no_question_is_in_two_splits_and_duplicates_go() -> None:
    data = rows(3, 20)
    variants = [json.loads(json.dumps(row).replace("question", "QUESTION")) for row in data]
    result = split(data + data + variants, validation_share=0.1, heldout_share=0.2, seed="s")
    assert result.duplicates == 60
    keys = [{question_key(row) for row in part} for part in (result.train, result.validation, result.heldout)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_the_task_follows_from_the_answers() -> None:
    assert task_of(rows(4, 5)) == "classification"
    assert task_of([json.loads(chat(f"q{n}", f"an answer of its own, number {n}")) for n in range(30)]) == "generation"
    assert task_of([json.loads(chat(f"q{n}", "long " * 30)) for n in range(30)]) == "generation"


@pytest.mark.parametrize(
    ("systems", "shared"), [(["Be brief."] * 3, "Be brief."), (["Be brief.", "", "Be brief."], ""), (["", "", ""], "")]
)
def test_the_system_message_of_all_rows_is_known(systems: list[str], shared: str) -> None:
    rows = [
        {
            "messages": [
                *([{"role": "system", "content": system}] if system else []),
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": "answer"},
            ]
        }
        for number, system in enumerate(systems)
    ]
    assert split(rows, validation_share=0.0, heldout_share=0.4, seed="s").system == shared
