"""The protocol of secure aggregation without Flower: masks that cancel, secrets that come back, and what is refused."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import shamirs  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsim.secagg import client, server
from fedsim.secagg.client import State
from fedsim.secagg.crypto import Words, agree, derive, public_key, seal, stream, unseal
from fedsim.secagg.protocol import (
    Aborted,
    Keys,
    KeysRequest,
    Refused,
    Settings,
    Shares,
    SharesRequest,
    UnmaskRequest,
    UpdateRequest,
    plan,
)
from fedsim.secagg.shamir import PRIME, recover, split

FALSE_ALARM = 1e-6
STAGES = ("keys", "shares", "update", "unmask")
NOBODY: Mapping[str, frozenset[int]] = {}
LENGTH = 5


def entropy(member: int, seed: int = 0) -> bytes:
    return derive(f"{seed}".encode(), "test", member)


class Trace(NamedTuple):
    """What happened in a round; states are those before the unmasking."""

    total: Words
    survivors: list[int]
    masked: dict[int, Words]
    states: dict[int, State]
    unmask: dict[int, UnmaskRequest]
    shares: dict[int, Shares]
    updates: dict[int, UpdateRequest]


def whole_round(
    agreed: Settings,
    vectors: Mapping[int, Words],
    lost: Mapping[str, frozenset[int]] = NOBODY,
    number: int = 1,
    models: Mapping[int, bytes] | None = None,
    sent: Mapping[int, bytes] | None = None,
    seed: int = 0,
) -> Trace:
    """Run a round in which the clients of `lost` fall silent at a stage. models: the hash each is told; sent: the hash
    of what each is sent.
    """
    models = models or dict.fromkeys(vectors, b"")

    def there(members: Sequence[int], stage: str) -> list[int]:
        return [member for member in members if member not in lost.get(stage, frozenset())]

    states: dict[int, State] = {}
    keys: dict[int, Keys] = {}
    invitations = server.invite(number, sorted(vectors))
    for k in there(list(invitations), "keys"):
        states[k], keys[k] = client.send_keys(agreed, entropy(k, seed), client.start(k), invitations[k])
    rng = np.random.default_rng(seed)
    under_way, wanted = server.ask_shares(agreed, number, len(vectors), keys, models, rng)
    shares: dict[int, Shares] = {}
    for k in there(list(wanted), "shares"):
        states[k], shares[k] = client.send_shares(agreed, states[k], wanted[k])
    under_way, updates = server.ask_updates(under_way, shares)
    masked = {}
    for k in there(list(updates), "update"):
        opened = client.open_shares(agreed, states[k], updates[k], (sent or models)[k])
        states[k], masked[k] = client.mask(agreed, opened, vectors[k])
    under_way, unmask = server.ask_unmask(under_way, sorted(masked))
    answers = {k: client.unmask(states[k], unmask[k])[1] for k in there(list(unmask), "unmask")}
    total = server.unmasked_sum(under_way, masked, unmask, answers)
    return Trace(total, sorted(masked), masked, states, unmask, shares, updates)


def random_vectors(clients: int, bits: int = 32, length: int = LENGTH, seed: int = 0) -> dict[int, Words]:
    rng = np.random.default_rng(seed)
    return {k: stream(rng.bytes(32), length, bits) for k in range(clients)}


def plain_sum(vectors: Mapping[int, Words], members: Sequence[int]) -> list[int]:
    """The sum in Python's integers, reduced at the end."""
    modulus = 2 ** (8 * vectors[0].dtype.itemsize)
    return [sum(int(vectors[k][i]) for k in members) % modulus for i in range(len(vectors[0]))]


# Cryptography, against published numbers


def test_keys_agree_as_in_rfc_7748() -> None:
    one, other = entropy(1), entropy(2)
    assert agree(one, [public_key(other)]) == agree(other, [public_key(one)])
    # Section 5.2, first test vector.
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert agree(scalar, [point])[0].hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_keys_are_derived_as_in_rfc_5869() -> None:
    """Appendix A.3: SHA-256 without salt and info."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert derive(b"\x0b" * 22, length=42).hex() == expected


def test_a_stream_is_aes_256_in_counter_mode() -> None:
    """The cipher of a zero block under a zero key is in NIST's known answers for AES-256."""
    assert stream(bytes(32), 4, 32).tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    assert stream(bytes(32), 2, 64).tobytes() == stream(bytes(32), 4, 32).tobytes()


def test_a_letter_opens_for_its_key_and_its_context_only() -> None:
    key, other = bytes(32), bytes(31) + b"\x01"
    letter = seal(key, b"shares", b"1:2:3")
    assert unseal(key, letter, b"1:2:3") == b"shares"
    assert unseal(other, letter, b"1:2:3") is None
    assert unseal(key, letter, b"1:3:2") is None


# Shares


def test_the_field_is_of_the_smallest_prime_above_all_secrets() -> None:
    """Fermat's test proves that those below are composite; the prime itself passes for many bases."""
    assert all(pow(3, n - 1, n) != 1 for n in range(2**256 + 1, PRIME, 2))
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 60))


secrets = st.binary(min_size=32, max_size=32)


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], int]:
    points = draw(st.lists(st.integers(1, 2**20), min_size=1, max_size=7, unique=True))
    return points, draw(st.integers(1, len(points)))


@settings(max_examples=30, deadline=None)
@given(secrets, splits(), secrets)
def test_any_threshold_of_our_shares_is_a_secret_to_us_and_to_the_library(
    secret: bytes, points_and_threshold: tuple[list[int], int], drawn_from: bytes
) -> None:
    points, threshold = points_and_threshold
    shares = split(secret, points, threshold, drawn_from)
    some = dict(list(shares.items())[-threshold:])
    assert recover(some, threshold) == secret
    theirs = shamirs.interpolate(
        [shamirs.share(point, int.from_bytes(share, "little"), PRIME) for point, share in some.items()]
    )
    assert theirs == int.from_bytes(secret, "little")


@settings(max_examples=15, deadline=None)
@given(secrets, st.integers(2, 6), st.integers(0, 3))
def test_shares_of_the_library_are_a_secret_to_us(secret: bytes, threshold: int, more: int) -> None:
    value = int.from_bytes(secret, "little")
    theirs = shamirs.shares(value, quantity=threshold + more, modulus=PRIME, threshold=threshold)
    assert recover({share.index: share.value.to_bytes(33, "little") for share in theirs}, threshold) == secret


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """Two of three shares and any third value are shares of some secret; so they tell nothing."""
    shares = split(bytes(32), [1, 2, 3], 3, entropy(0))
    with pytest.raises(ValueError, match="3 shares are needed, got 2"):
        recover({1: shares[1], 2: shares[2]}, 3)
    found = {recover({**shares, 3: guess.to_bytes(33, "little")}, 3) for guess in range(200)}
    assert len(found - {None}) >= 199  # a secret each, up to the 297 of 2^256 that are too long for one


def test_shares_belong_to_their_entropy() -> None:
    assert split(bytes(32), [1, 2], 2, entropy(0)) == split(bytes(32), [1, 2], 2, entropy(0))
    assert split(bytes(32), [1, 2], 2, entropy(0)) != split(bytes(32), [1, 2], 2, entropy(1))


@pytest.mark.parametrize(("points", "threshold"), [([1, 2], 3), ([1, 2], 0), ([1, 1], 1), ([0, 1], 1)])
def test_impossible_shares_are_refused(points: list[int], threshold: int) -> None:
    with pytest.raises(ValueError, match=r"threshold|points"):
        split(bytes(32), points, threshold, entropy(0))


# Who shares with whom

agreements = st.builds(Settings, st.none() | st.integers(1, 9), st.floats(0.5, 1, exclude_min=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 25), agreements, st.integers(0, 2**32 - 1))
def test_the_graph_is_mutual_and_regular(clients: int, agreed: Settings, seed: int) -> None:
    degree, _ = plan(agreed, clients)
    graph = server.graph(range(10, 10 + clients), degree, np.random.default_rng(seed))
    assert set(graph) == set(range(10, 10 + clients))
    for member, others in graph.items():
        assert len(others) == len(set(others)) == degree
        assert member not in others
        assert all(member in graph[other] for other in others)
    wanted = clients - 1 if agreed.neighbours is None else agreed.neighbours
    assert degree == clients - 1 or wanted <= degree <= wanted + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), agreements)
def test_no_two_thresholds_fit_into_a_neighbourhood(clients: int, agreed: Settings) -> None:
    """Else half the holders could be told that a client dropped out and the others that it survived."""
    degree, threshold = plan(agreed, clients)
    assert 2 * threshold > degree + 1
    assert 2 <= threshold <= degree + 1


def test_the_threshold_is_the_share_rounded_up() -> None:
    assert plan(Settings(4, 0.6), 100) == (4, 3)
    assert plan(Settings(None, 2 / 3), 9) == (8, 6)
    assert plan(Settings(19, 0.55), 20) == (19, 11)  # 0.55 x 20 is above 11 in floating point
    assert plan(Settings(3, 1.0), 100) == (4, 5)


# The sum


@st.composite
def losses(draw: st.DrawFn) -> tuple[int, dict[str, frozenset[int]]]:
    clients = draw(st.integers(2, 9))
    member = st.integers(0, clients - 1)
    return clients, {stage: draw(st.frozensets(member, max_size=2)) for stage in STAGES}


@settings(max_examples=40, deadline=None)
@given(losses(), st.sampled_from([32, 64]), st.floats(0.5, 1, exclude_min=True), st.integers(0, 2**32 - 1))
def test_with_all_neighbours_the_round_ends_exactly_when_enough_are_left_and_the_sum_is_that_of_the_survivors(
    case: tuple[int, dict[str, frozenset[int]]], bits: int, share: float, seed: int
) -> None:
    clients, lost = case
    vectors = random_vectors(clients, bits, seed=seed)
    agreed = Settings(None, share)
    left = set(vectors) - frozenset().union(*lost.values())
    if len(left) < plan(agreed, clients).threshold:
        with pytest.raises(Aborted):
            whole_round(agreed, vectors, lost, seed=seed)
        return
    trace = whole_round(agreed, vectors, lost, seed=seed)
    assert trace.survivors == sorted(set(vectors) - lost["keys"] - lost["shares"] - lost["update"])
    assert trace.total.tolist() == plain_sum(vectors, trace.survivors)


@settings(max_examples=40, deadline=None)
@given(losses(), st.sampled_from([2, 4]), st.integers(0, 2**32 - 1))
def test_on_a_sparse_graph_the_sum_is_that_of_the_survivors_or_none(
    case: tuple[int, dict[str, frozenset[int]]], neighbours: int, seed: int
) -> None:
    clients, lost = case
    vectors = random_vectors(clients, seed=seed)
    try:
        trace = whole_round(Settings(neighbours, 0.51), vectors, lost, seed=seed)
    except Aborted:
        assert any(lost.values())
        return
    assert trace.total.tolist() == plain_sum(vectors, trace.survivors)


@pytest.mark.parametrize("stage", STAGES)
def test_on_a_sparse_graph_one_client_may_fall_silent_at_any_stage(stage: str) -> None:
    vectors = random_vectors(12)
    trace = whole_round(Settings(4, 0.6), vectors, {stage: frozenset({3})})
    assert trace.survivors == sorted(set(vectors) - ({3} if stage != "unmask" else set()))
    assert trace.total.tolist() == plain_sum(vectors, trace.survivors)


def test_a_graph_that_fell_apart_ends_the_round() -> None:
    """Else the server would learn the sum of each part."""
    circle = {k: tuple(sorted((k + step) % 6 for step in (-1, 1))) for k in range(6)}
    settled = server.Round(Settings(2, 0.51), 1, plan(Settings(2, 0.51), 6), circle, {}, frozenset(range(6)))
    assert set(server.ask_unmask(settled, [0, 1, 2, 3, 4])[1]) == {0, 1, 2, 3, 4}
    with pytest.raises(Aborted, match="sums over fewer"):
        server.ask_unmask(settled, [0, 1, 3, 4])


def test_wrong_shares_end_the_round() -> None:
    vectors = random_vectors(4)
    lost = {"update": frozenset({3})}
    trace = whole_round(Settings(None, 0.6), vectors, lost)
    answers = {k: client.unmask(trace.states[k], request)[1] for k, request in trace.unmask.items()}
    for answer in answers.values():
        answer["keys"] = answer["seeds"][:1]
    keys = {k: client.send_keys(Settings(), entropy(k), client.start(k), _invited(4))[1] for k in vectors}
    graph = server.graph(range(4), 3, np.random.default_rng(0))
    settled = server.Round(
        Settings(), 1, plan(Settings(None, 0.6), 4), graph, keys, frozenset(vectors), frozenset({0, 1, 2})
    )
    with pytest.raises(Aborted, match=r"another key|do not belong together"):
        server.unmasked_sum(settled, trace.masked, trace.unmask, answers)


def test_same_entropy_same_bytes() -> None:
    vectors = random_vectors(5)
    one, same, other = (whole_round(Settings(), vectors, seed=seed) for seed in (0, 0, 1))
    assert one.shares == same.shares
    assert all((one.masked[k] == same.masked[k]).all() for k in vectors)
    assert one.shares != other.shares
    assert all((one.masked[k] != other.masked[k]).any() for k in vectors)


# What a client refuses


def _invited(clients: int, number: int = 1) -> KeysRequest:
    return KeysRequest(round=number, invited=clients)


def _asked(number: int = 1, clients: int = 4, **changes: object) -> SharesRequest:
    """What client 0 of `clients` is asked for its shares."""
    keys = [client.send_keys(Settings(), entropy(k), client.start(k), _invited(clients))[1] for k in range(1, clients)]
    request = SharesRequest(
        round=number,
        neighbours=list(range(1, clients)),
        encryption=[each["encryption"] for each in keys],
        masking=[each["masking"] for each in keys],
        model=b"",
    )
    return {**request, **changes}  # type: ignore[typeddict-item]


def _after_keys(clients: int = 4) -> State:
    return client.send_keys(Settings(), entropy(0), client.start(0), _invited(clients))[0]


def test_a_round_is_not_run_twice() -> None:
    state = _after_keys()
    for number in (1, 0):
        with pytest.raises(Refused, match="after round 1"):
            client.send_keys(Settings(), entropy(0), state, _invited(4, number))
    assert client.send_keys(Settings(), entropy(0), state, _invited(4, 2))[0]["round"] == 2


def test_nobody_takes_part_alone() -> None:
    with pytest.raises(Refused, match="hides nobody"):
        client.send_keys(Settings(), entropy(0), client.start(0), _invited(1))
    with pytest.raises(Aborted, match="hides nobody"):
        server.invite(1, [3])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"neighbours": [1], "encryption": [b"a"], "masking": [b"b"]}, "fewer than the threshold of 3"),
        ({"neighbours": [1, 2, 3, 4]}, "more than the 3 agreed on"),
        ({"neighbours": [1, 2, 2]}, "another twice"),
        ({"neighbours": [0, 1, 2]}, "its own neighbour"),
        ({"masking": [bytes([9]) * 32] * 3}, "two public keys are the same"),
        ({"encryption": [bytes(32), b"\x01" + bytes(31), b"\x02" + bytes(31)]}, "a public key is none"),
        ({"round": 2}, "out of turn"),
    ],
)
def test_a_neighbourhood_that_would_give_it_away_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        client.send_shares(Settings(), _after_keys(), _asked(**changes))  # type: ignore[arg-type]


def test_a_key_of_its_own_given_back_to_it_is_refused() -> None:
    state = _after_keys()
    mine = public_key(state["masking"])
    with pytest.raises(Refused, match="the same"):
        client.send_shares(Settings(), state, _asked(masking=[mine, *_asked()["masking"][1:]]))


def test_shares_are_given_once() -> None:
    state, _ = client.send_shares(Settings(), _after_keys(), _asked())
    with pytest.raises(Refused, match="out of turn"):
        client.send_shares(Settings(), state, _asked())


def _letters(clients: int = 4) -> tuple[State, UpdateRequest]:
    """Client 0 after it sent its shares, and the letters to it."""
    vectors = random_vectors(clients)
    trace = whole_round(Settings(), vectors)
    return client.send_shares(Settings(), _after_keys(clients), _asked(clients=clients))[0], trace.updates[0]


@pytest.mark.parametrize("place", [0, 40, 70, -1])
def test_a_letter_tampered_with_is_refused(place: int) -> None:
    state, request = _letters()
    broken = bytearray(request["letters"][1])
    broken[place] ^= 1
    letters = [request["letters"][0], bytes(broken), request["letters"][2]]
    client.open_shares(Settings(), state, request, b"")
    with pytest.raises(Refused, match="not what it sent"):
        client.open_shares(Settings(), state, {**request, "letters": letters}, b"")


def test_a_letter_under_another_name_is_refused() -> None:
    state, request = _letters()
    with pytest.raises(Refused, match="not what it sent"):
        client.open_shares(Settings(), state, {**request, "letters": request["letters"][::-1]}, b"")
    with pytest.raises(Refused, match="the neighbours are"):
        client.open_shares(Settings(), state, {**request, "senders": [1, 2, 7]}, b"")
    with pytest.raises(Refused, match="the neighbours are"):
        client.open_shares(Settings(), state, {**request, "senders": [1, 2, 2]}, b"")


def test_too_few_letters_are_refused() -> None:
    state, request = _letters()
    with pytest.raises(Refused, match="fewer than the threshold of 3"):
        client.open_shares(Settings(), state, {**request, "senders": [1], "letters": request["letters"][:1]}, b"")


def test_a_second_vector_of_a_round_is_refused() -> None:
    """Their difference would be that of two updates, in clear."""
    trace = whole_round(Settings(), random_vectors(4))
    with pytest.raises(Refused, match="out of turn"):
        client.mask(Settings(), trace.states[0], random_vectors(4)[1])
    with pytest.raises(Refused, match="out of turn"):
        client.open_shares(Settings(), trace.states[0], trace.updates[0], b"")


def _unmask(survivors: list[int], dropped: list[int], number: int = 1) -> UnmaskRequest:
    return UnmaskRequest(round=number, survivors=survivors, dropped=dropped)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_unmask([0, 1, 2, 3], [3]), "both kinds"),
        (_unmask([0, 1, 2, 2], []), "one twice"),
        (_unmask([0, 1], [2, 3]), "fewer than the threshold of 3"),
        (_unmask([1, 2, 3], [0]), "it is said to have dropped out"),
        (_unmask([0, 1, 2, 9], []), "it holds those of"),
        (_unmask([0, 1, 2, 3], [], number=2), "out of turn"),
    ],
)
def test_an_unmasking_that_would_give_somebody_away_is_refused(request_: UnmaskRequest, reason: str) -> None:
    trace = whole_round(Settings(), random_vectors(4))
    with pytest.raises(Refused, match=reason):
        client.unmask(trace.states[0], request_)


def test_an_unmasking_is_answered_once_so_never_with_both_kinds_in_two_requests() -> None:
    trace = whole_round(Settings(), random_vectors(4))
    state, answer = client.unmask(trace.states[0], _unmask([0, 1, 2, 3], []))
    assert len(answer["seeds"]) == 4
    assert not answer["keys"]
    for again in (_unmask([0, 1, 2, 3], []), _unmask([0, 1, 2], [3])):
        with pytest.raises(Refused, match="out of turn"):
            client.unmask(state, again)
    assert not state["seeds"]  # nothing left to give
    assert not state["keys"]


def test_secrets_are_forgotten_once_the_vector_is_masked() -> None:
    state = whole_round(Settings(), random_vectors(4)).states[0]
    assert not any((state["encryption"], state["masking"], state["seed"], state["sharing"]))


def test_with_consistency_clients_that_were_told_of_different_models_refuse() -> None:
    agreed, vectors = Settings(consistency=True), random_vectors(4)
    one, other = bytes(32), bytes(31) + b"\x01"
    same = dict.fromkeys(vectors, one)
    assert whole_round(agreed, vectors, models=same).total.tolist() == plain_sum(vectors, list(vectors))
    with pytest.raises(Refused, match="client 2 was told of another model"):
        whole_round(agreed, vectors, models={**same, 2: other})
    with pytest.raises(Refused, match="not the one that was announced"):
        whole_round(agreed, vectors, models=same, sent={**same, 0: other})
    with pytest.raises(Refused, match="hash of the model is missing"):
        whole_round(agreed, vectors)
    whole_round(Settings(), vectors, models={**same, 2: other})  # without it nobody notices


# What a masked vector tells


def uniformity(words: Words) -> float:
    """The p-value that the bytes of some words are uniform."""
    return float(stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("neighbours", [None, 2])
def test_a_masked_vector_is_uniform_whatever_is_in_it(bits: int, neighbours: int | None) -> None:
    """False alarm: FALSE_ALARM for each of five clients."""
    vectors = {k: np.zeros(20_000, dtype=f"u{bits // 8}") for k in range(5)}
    masked = whole_round(Settings(neighbours), vectors).masked
    assert all(uniformity(each) > FALSE_ALARM for each in masked.values())
    # A vector that is not masked in one bit of each word is noticed.
    one_bit = masked[0].dtype.type(1)
    assert uniformity(masked[0] | one_bit) < FALSE_ALARM


def test_two_rounds_of_a_client_differ_by_a_uniform_vector_and_by_its_updates_alone_where_the_seed_is_reused() -> None:
    """False alarm: FALSE_ALARM. The difference of two masked vectors is what an observer would subtract."""
    first, second = random_vectors(5, length=20_000, seed=1), {k: np.full(20_000, k, np.uint32) for k in range(5)}
    honest = [whole_round(Settings(), vectors, number=n).masked[0] for n, vectors in ((1, second), (2, second))]
    assert uniformity(honest[1] - honest[0]) > FALSE_ALARM
    careless = Settings(reused_seed=True)
    reused = [whole_round(careless, vectors, number=n) for n, vectors in ((1, first), (2, second))]
    difference = reused[1].masked[0] - reused[0].masked[0]
    assert (difference == second[0] - first[0]).all()
    constant = whole_round(careless, second, number=3).masked[0] - reused[1].masked[0]
    assert uniformity(constant) < FALSE_ALARM
    assert reused[0].total.tolist() == plain_sum(first, list(first))  # the sum is right all the same


def test_a_mask_of_32_bits_is_found_by_trying_all_and_an_honest_one_is_not() -> None:
    """Scaled down: the attacker knows all but 12 bits of the 32."""
    secret = entropy(0)
    found = {}
    for reused in (False, True):
        key = client.mask_key(Settings(reused_seed=reused), secret, "self mask", 1, 0)
        seen = stream(key, 4, 32)
        tries = [bytes([low, key[1] & 0xF0 | high]) + key[2:4] + bytes(28) for low in range(256) for high in range(16)]
        found[reused] = sum(bool((stream(guess, 4, 32) == seen).all()) for guess in tries)
    assert found == {False: 0, True: 1}


def test_unmasking_one_neighbour_leaves_the_others_covered() -> None:
    """The server with the self mask of a client, and without its pairwise ones, still sees nothing (FALSE_ALARM)."""
    vectors = {k: np.zeros(20_000, dtype=np.uint32) for k in range(5)}
    trace = whole_round(Settings(), vectors)
    state = client.send_keys(Settings(), entropy(0), client.start(0), _invited(5))[0]
    own = stream(client.mask_key(Settings(), state["seed"], "self mask", 1, 0), 20_000, 32)
    assert uniformity(trace.masked[0] - own) > FALSE_ALARM
    pairs = np.zeros(20_000, dtype=np.uint32)
    for k, secret in enumerate(agree(state["masking"], [public_key(_private(k)) for k in range(1, 5)]), start=1):
        pairs += stream(client.mask_key(Settings(), secret, "pairwise mask", 1, 0, k), 20_000, 32)
    assert not (trace.masked[0] - own - pairs).any()


def _private(member: int) -> bytes:
    return client.send_keys(Settings(), entropy(member), client.start(member), _invited(5))[0]["masking"]
