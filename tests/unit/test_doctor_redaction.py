"""What leaves a host in evidence: no secret, in no form, and everything that explains."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.services.evidence import Source, redacted
from agent.services.redaction import Redactor
from agent.services.secret_shapes import MASK, mask

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=20,
)
VALUE = "s3cr3t-canary/+value"


def source(id: str, text: str, form="text") -> Source:
    return Source(id=id, file=id, form=form, argv=[], data=text.encode())


KEY = [base64.b64encode(bytes(range(each, each + 48))).decode() for each in range(8)]


@pytest.mark.parametrize("before", ["", "2026-11-22T08:50:00.871072000Z ", "Nov 22 08:50:00 host web[12]: "])
@pytest.mark.parametrize("cut", ["whole", "its head is cut away", "its end is cut away"])
def test_a_private_key_is_taken_out_of_a_log_also_where_only_a_part_of_it_was_read(before, cut):
    lines = ["-----BEGIN RSA PRIVATE KEY-----", *KEY, "-----END RSA PRIVATE KEY-----"]
    lines = lines[3:] if "head" in cut else lines[:-2] if "end" in cut else lines
    text = "".join(f"{before}{each}\n" for each in [*([] if "head" in cut else ["started"]), *lines, "went on"])
    (kept,) = redacted([source("log", text)])
    said = kept.data.decode()
    assert [each for each in KEY if each in said or each[:20] in said] == []
    assert ("started" in said, "went on" in said) == ("head" not in cut, "end is" not in cut)


@pytest.mark.parametrize("before", ["", "Nov 22 08:50:00 host web[12]: "])
@settings(deadline=None)
@given(key=st.binary(min_size=64, max_size=1200), wide=st.sampled_from([64, 70, 76]), lost=st.integers(0, 20))
def test_no_line_of_a_key_stays_however_short_its_last_is_and_however_much_was_cut_away(before, key, wide, lost):
    body = base64.b64encode(key).decode()
    lines = [body[at : at + wide] for at in range(0, len(body), wide)]
    lines = lines[min(lost, len(lines) - 1) :]
    text = "".join(f"{before}{each}\n" for each in [*lines, "-----END OPENSSH PRIVATE KEY-----", "went on"])
    assert mask(text) == f"{MASK}\n{before}went on\n"


@pytest.mark.parametrize("made", range(20))
def test_no_line_of_a_key_that_was_really_made_stays(made):
    key = Ed25519PrivateKey.generate()
    _, _, *lines = (
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode().splitlines()
        if made % 2
        else key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().splitlines()
    )
    assert mask("\n".join([*lines, "went on"])) == f"{MASK}\nwent on"


def test_ends_of_keys_without_number_take_no_time_and_hide_only_what_is_a_keys():
    end = "-----END PRIVATE KEY-----"
    text = f"kept\n{KEY[0]}\n" * 2000 + f"{end} {end * 20000}\nkept too\n"
    (kept,) = redacted([source("log", text)])
    assert kept.data.decode().count("kept") == 2001


@pytest.mark.parametrize(
    "form",
    [VALUE, quote(VALUE, safe=""), json.dumps(VALUE), VALUE.encode().hex(),
     *(base64.b64encode(("x" * pad + VALUE + "y").encode()).decode() for pad in range(3)),
     *(base64.urlsafe_b64encode(("x" * pad + VALUE).encode()).decode() for pad in range(3))],
)  # fmt: skip
def test_what_is_a_secret_in_one_source_is_taken_out_of_every_other_in_any_form(form):
    learned, log = redacted([
        source("env", f"API_TOKEN={VALUE}\n", "environment"), source("log", f"it said {form} and ended\n")
    ])  # fmt: skip
    assert VALUE not in learned.data.decode()
    assert form.strip('"') not in log.data.decode()
    assert log.counts["value"] == 1
    assert log.data.decode().startswith("it said ")


def test_credentials_go_by_structure_and_names_of_registries_and_helpers_stay():
    config = {
        "auths": {"r.example.com": {"auth": base64.b64encode(b"bot:hush-hush").decode(), "email": "a@b"}},
        "HttpHeaders": {"X-Key": "abcdef"},
        "credHelpers": {"g.example.com": "gcloud"},
        "credsStore": "pass",
    }
    file, log = redacted([source("auth", json.dumps(config), "json"), source("log", "login as bot with hush-hush\n")])
    found = json.loads(file.data)
    assert found == {"auths": {"r.example.com": {"auth": "***", "email": "a@b"}}, "HttpHeaders": {"X-Key": "***"},
                     "credHelpers": {"g.example.com": "gcloud"}, "credsStore": "pass"}  # fmt: skip
    assert b"hush" not in log.data


def test_an_auth_file_that_is_no_json_stays_on_the_host():
    (found,) = redacted([source("auth", '{"auths": {"r": {"auth": "aGVsbG86d29ybGQ="', "json")])
    assert found.data == b"withheld: it is no JSON\n"


def test_a_document_nested_without_end_is_withheld():
    (found,) = redacted([source("deep", "[" * 100_000 + "]" * 100_000, "json")])
    assert found.data.startswith(b"withheld")


def test_values_of_environments_go_and_their_names_stay():
    unit = '[Service]\nEnvironment=MODE=quick "DSN=pg://u:p4ss@h/x" PATH=/usr/bin\nExecStart=/bin/x\n'
    text, counts = Redactor().text(unit)
    assert text == "[Service]\nEnvironment=MODE=*** DSN=*** PATH=/usr/bin\nExecStart=/bin/x\n"
    assert "p4ss" not in text
    assert counts["structure"] >= 1
    inspected, _ = Redactor().json({"Config": {"Env": ["MODE=quick", "PATH=/bin", "EMPTY="]}})
    assert inspected == {"Config": {"Env": ["MODE=***", "PATH=/bin", "EMPTY="]}}


@given(DOCUMENTS)
def test_any_document_keeps_its_shape(value):
    redactor = Redactor()
    redactor.learn_json(value)
    found, _ = redactor.json(value)
    assert type(found) is type(value) or found == "***"
    json.dumps(found)


@given(st.text(max_size=300))
def test_any_text_can_be_redacted_twice(text):
    redactor = Redactor()
    redactor.learn(text)
    once, _ = redactor.text(text)
    redactor.text(once)


@pytest.mark.parametrize(
    "line",
    ["Environment=A=b \\\n  DSN=hunter2hunter", "SetCredential=db:hunter2hunter", "export DSN=hunter2hunter",
     "Environment=\"DSN=x hunter2hunter y\"", "  export DSN='a hunter2hunter'"],
)  # fmt: skip
def test_values_that_a_definition_sets_go_whatever_they_are_called(line):
    (found,) = redacted([source("unit", f"[Service]\n{line}\nExecStart=/bin/x\n")])
    assert b"hunter2" not in found.data
    assert found.data.endswith(b"\nExecStart=/bin/x\n")
