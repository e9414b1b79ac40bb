"""Reading a workload: two sets of columns, two formats, and what is said of a bad file."""

from __future__ import annotations

import json

import pytest

from penstock.errors import ConfigError
from penstock.simulate.rows import Row, read_rows

LEDGER = (
    "at,tenant,class,model,chain,run,step,tokens_input,tokens_output,tokens_output_max,"
    "deadline_seconds,wait_seconds,upstream_seconds"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t_ms,prompt_tokens\n0,1\n", ":1: the column output_tokens is missing"),
        ("at,prompt_tokens\n0,1\n", "the column tokens_input is missing"),
        ("", "the column t_ms is missing; give at, tokens_input and tokens_output or t_ms,"),
        ("t_ms,prompt_tokens,output_tokens\n", "no rows"),
        ("t_ms,prompt_tokens,output_tokens\n0,1,1\n5,many,1\n", ":3: prompt_tokens is 'many'"),
        ("t_ms,prompt_tokens,output_tokens\n0,nan,1\n", "prompt_tokens is 'nan'"),
        ("t_ms,prompt_tokens,output_tokens\n-1,1,1\n", "t_ms is '-1'"),
        ("t_ms,prompt_tokens,output_tokens\n0,1e99,1\n", "prompt_tokens is '1e99'"),
        ("at,tokens_input,tokens_output\n1,2,3\n\xff", "no CSV in UTF-8"),
    ],
)
def test_a_bad_file_is_told_with_line_value_and_rule(tmp_path, text, said):
    path = tmp_path / "w.csv"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError) as raised:
        read_rows(path)
    assert said in raised.value.problems[0]
    assert raised.value.problems[0].startswith(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "there are no rows"),
        ("{}", "no JSON array of flat objects"),
        ('[{"at": 1, "tokens_input": [2], "tokens_output": 3}]', "no JSON array of flat objects"),
        ('[{"at": 1, "tokens_input": 2}]', "the column tokens_output is missing"),
        (
            '[{"at": 1, "tokens_input": 2, "tokens_output": 3}, {"at": "x"}]',
            "object 2: at is 'x'",
        ),
    ],
)
def test_so_is_bad_json(tmp_path, text, said):
    path = tmp_path / "w.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"w\.json") as raised:
        read_rows(path)
    assert said in raised.value.problems[0]


def test_a_trace_may_name_everything(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text(
        "t_ms,prompt_tokens,output_tokens,session,tenant,class,model,max_tokens,deadline_s\n"
        "1500,10,20,s,t,batch,m,64,30\n"
    )

    assert read_rows(path) == [Row(1.5, 10, 20, "s", "t", "batch", "m", 64, 30.0)]


def test_a_ledger_reads_the_same_from_csv_and_json(tmp_path):
    lines = [
        "1770000000.5,t,batch,m,sums,r1,0,10,20,64,30.0,1.5,2.0",
        "1770000000.25,u,,m,,,0,5,0,,,0.0,0.0",
    ]
    text = tmp_path / "w.csv"
    text.write_text("\n".join([LEDGER, *lines]))
    names = LEDGER.split(",")
    objects = [
        {name: value or None for name, value in zip(names, line.split(","), strict=True)}
        for line in lines
    ]
    objects[0]["tokens_input"] = 10
    document = tmp_path / "w.json"
    document.write_text(json.dumps(objects))

    expected = [
        Row(1770000000.25, 5, 0, "", "u", "", "m"),
        Row(1770000000.5, 10, 20, "", "t", "batch", "m", 64, 30.0, "r1", 3.5),
    ]
    assert read_rows(text) == expected
    assert read_rows(document) == expected
