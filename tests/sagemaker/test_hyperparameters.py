from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.cli.sagemaker import search_flags
from rlnas.errors import ContainerError, RequestError
from rlnas.sagemaker.hyperparameters import (
    CODE_DIGEST,
    HOSTS_KEY,
    check_hyperparameters,
    check_no_secret,
    to_arguments,
    to_hyperparameters,
)

FLAGS = search_flags()
free = sorted((FLAGS.valued | FLAGS.switches) - FLAGS.reserved)


def test_the_flags_are_those_of_a_search():
    assert {"budget", "target-ratio", "task"} <= FLAGS.valued
    assert {"racing", "resume", "freeze-embeddings"} <= FLAGS.switches


def test_both_spellings_are_understood():
    arguments = ["--budget", "3", "--seed=-1", "--racing", "--task", "a=b", "--budget=4"]
    assert to_hyperparameters(arguments, FLAGS) == {
        "budget": "4",
        "seed": "-1",
        "racing": "true",
        "task": "a=b",
    }


@given(
    st.dictionaries(
        st.sampled_from(free),
        st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(lambda t: t[:8] != "channel:"),
    )
)
def test_arguments_survive_the_way_into_the_container(values):
    arguments = [f"--{name}" if name in FLAGS.switches else f"--{name}={v}" for name, v in values.items()]
    assert to_arguments(to_hyperparameters(arguments, FLAGS), FLAGS, {}) == arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bugdet", "3"], "'--bugdet' is no flag of rlnas search; did you mean --budget?"),
        (["3"], "'3' is no flag of rlnas search; see rlnas search --help"),
        (["--budget"], "--budget needs a value"),
        (["--racing=yes"], "--racing takes no value, but got 'yes'"),
        (["--out", "x"], "--out is set in the container; leave it out"),
        (["--resume"], "--resume is set in the container; leave it out"),
    ],
)
def test_what_is_no_flag_is_refused(arguments, message):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        to_hyperparameters(arguments, FLAGS)


def test_channels_become_folders_and_files(tmp_path):
    (tmp_path / "train.csv").write_text("")
    values = {"task": "channel:data/train.csv", "model": "channel:data"}
    values |= {CODE_DIGEST: "0" * 64, HOSTS_KEY: "a"}
    assert to_arguments(values, FLAGS, {"data": tmp_path}) == [
        f"--task={tmp_path}/train.csv",
        f"--model={tmp_path}",
    ]


def test_a_switch_may_be_off():
    assert to_arguments({"racing": "False"}, FLAGS, {}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bugdet": "3"}, "the hyper-parameter bugdet=3 is none of rlnas search; did you mean budget?"),
        ({"zzz": "3"}, "the hyper-parameter zzz=3 is none of rlnas search, which names its flags"),
        ({"out": "x"}, "the hyper-parameter out=x is none of rlnas search"),
        ({"racing": "1"}, "the hyper-parameter racing must be true or false, but is '1'"),
        (
            {"task": "channel:text/a"},
            "task=channel:text/a names a channel that is not there; the job has data",
        ),
        (
            {"task": "channel:data/a"},
            "task=channel:data/a names a file that the channel does not hold: /no/a",
        ),
    ],
)
def test_what_a_search_does_not_take_is_refused_in_the_container(values, message):
    with pytest.raises(ContainerError, match=f"^{re.escape(message)}"):
        to_arguments(values, FLAGS, {"data": Path("/no")})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({f"n{i}": "1" for i in range(101)}, "a job takes 100 hyper-parameters at most, but got 101"),
        ({"n" * 257: "1"}, "the name of a hyper-parameter has 1 to 256 characters, but 'nnn.*' has 257"),
        ({"": "1"}, "the name of a hyper-parameter has 1 to 256 characters, but '' has 0"),
        ({"task": "x" * 2501}, "has 2500 characters at most, but task='xxx.*'... has 2501"),
        ({"task": "a\nb"}, r"a hyper-parameter is one line, but task='a\\nb' has several"),
    ],
)
def test_what_sagemaker_does_not_take_is_refused(values, message):
    with pytest.raises(RequestError, match=message):
        check_hyperparameters(values)


# Pieces are put together here, so that no file of this project looks as if it held a key.
KEY_ID, SECRET = "AKIA" + "ABCDEFGH" * 2, "wJalr" + "XUtnFEMI/K7MDENG" + "/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("task", f"s3://{KEY_ID}@x", "an AWS access key"),
        ("task", f"AWS_SECRET_ACCESS_KEY={SECRET}", "an AWS secret key"),
        ("task", "ghp_" + "aB3" * 12, "a token of GitHub"),
        ("task", "github_pat_" + "aB3_" * 20, "a token of GitHub"),
        ("task", KEY_ID.replace("AKIA", "ASIA"), "an AWS access key"),
        ("task", SECRET, "an AWS secret key"),
        ("model", "hf_" + "aB3" * 12, "a token of the Hugging Face hub"),
        ("task", "-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("aws_secret_access_key", "x", "a secret, by its name"),
        ("the tag password", "x", "a secret, by its name"),
    ],
)
def test_credentials_are_refused_and_not_repeated(name, value, kind):
    with pytest.raises(RequestError) as refusal:
        check_no_secret(name, value, name)
    assert str(refusal.value).startswith(f"{name} looks like {kind}, and everyone who may describe the job")
    assert len(value) < 3 or value not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "/opt/data/Reviews2026/of/books/in/English.csv"),
        (CODE_DIGEST, "0123456789abcdef" * 4),
        ("model", "0123456789abcdef01234567" + "89abcdef01234567"),  # a commit
        ("model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("text-column", "tokens"),
    ],
)
def test_what_is_no_credential_passes(name, value):
    check_no_secret(name, value, name)


def test_the_name_of_a_file_is_no_credential():
    check_no_secret("line 1 of secret_sauce.py", "import math")
