"""What leaves a mac in a bundle: no value of an environment, nor the word after a telling option, whatever the form."""

from __future__ import annotations

from typing import Any

from agent.services.evidence import Source, redacted
from tests.unit.test_doctor_mac import references


def test_a_binary_property_list_without_end_is_withheld_in_no_time():
    bomb: list[Any] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    source = Source(id="d", file="d", form="plist", argv=[], data=references({"Label": "a", "WatchPaths": bomb}))
    (found,) = redacted([source])
    assert found.data == b"withheld: it is no property list\n"


def test_a_value_that_holds_a_brace_doesnt_end_its_environment():
    page = (
        'system/x = {\n\tenvironment = {\n\t\tCONFIG => {\n  "k": "hidden-canary-0"\n}\n\t\tPLAIN => plain-canary-1\n'
    )
    page += "\t}\n\tstate = running\n\tendpoints = {\n\t\tODD => odd-canary-2\n\t}\n}\n"
    (state,) = redacted([Source(id="s", file="s", form="launchctl", argv=[], data=page.encode())])
    assert b"canary" not in state.data
    assert b"\tstate = running\n" in state.data


def test_a_page_that_is_cut_off_shows_no_value_and_what_it_taught_is_taken_out_of_the_log():
    page = "system/x = {\n\targuments = {\n\t\t/bin/x\n\t\t--password\n\t\thush-canary\n"
    page += "\t}\n\tinherited environment = {\n\t\tA => plain-canary-1\n\t\tB => two\n\t\tlines-canary-2\n"
    log = "it said lines-canary-2 and hush-canary\n"
    state, said = redacted(
        [
            Source(id="s", file="s", form="launchctl", argv=[], data=page.encode()),
            Source(id="l", file="l", form="text", argv=[], data=log.encode()),
        ]
    )
    assert b"canary" not in state.data + said.data, (state.data, said.data)
    assert b"/bin/x" in state.data
