"""Vantages: a party is named as the events name it, or refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.transcript import PUBLIC, SERVER, Event, client
from fedsim.views import Vantage, parse_vantage, sees

CLIENTS = 12


@settings(deadline=None)
@given(st.sets(st.integers(0, CLIENTS - 1) | st.sampled_from([SERVER, PUBLIC]), min_size=1))
def test_every_party_that_is_named_sees_its_own_events(chosen: set[int | str]) -> None:
    names = [party if isinstance(party, str) else client(party) for party in chosen]
    vantage = parse_vantage(" + ".join([*names, names[0]]), CLIENTS)
    assert vantage == Vantage(frozenset(names))
    assert vantage.clients == {party for party in chosen if isinstance(party, int)}
    assert parse_vantage(str(vantage), CLIENTS) == vantage
    for name in names:
        assert sees(vantage, Event(1, "train-reply", name, "somebody", {}, {}))


@pytest.mark.parametrize(("text", "canonical"), [("client:00", "client:0"), ("server+client:03", "client:3")])
def test_leading_zeros_are_refused_with_the_name_that_is_meant(text: str, canonical: str) -> None:
    with pytest.raises(ValueError, match=rf"^no party '.*'; did you mean {canonical}\?$"):
        parse_vantage(text, CLIENTS)


ARABIC_THREE = "\N{ARABIC-INDIC DIGIT THREE}"


@pytest.mark.parametrize(
    "party",
    ["client:" + ARABIC_THREE, "client:12", "client:-1", "client:", "client", "", "Server", "client:" + "9" * 5000],
)
def test_a_party_that_is_not_there_is_refused(party: str) -> None:
    for text in (party, f"server+{party}"):
        with pytest.raises(ValueError, match=r"^no party .*; parties are public, server, client:0 \.\.\. client:11"):
            parse_vantage(text, CLIENTS)
