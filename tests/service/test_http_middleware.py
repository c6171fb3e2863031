"""Request ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http_middleware import SANE_ID, request_id_of


def offered(request_id: str) -> str:
    return request_id_of({b"x-request-id": request_id.encode("latin-1")})


@pytest.mark.parametrize("sane", ["a", "7f3e-01.x_Y", "x" * 128])
def test_a_sane_id_of_the_client_is_kept(sane: str) -> None:
    assert offered(sane) == sane


@pytest.mark.parametrize("insane", ["", "a b", "a\n", "<script>", "ü", "x" * 129, "a/b", '"', "a\x00"])
def test_any_other_is_replaced(insane: str) -> None:
    assert offered(insane) != insane


def test_without_one_every_request_gets_its_own() -> None:
    assert len({request_id_of({}) for _ in range(100)}) == 100


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_whatever_is_offered_the_id_is_sane(anything: str) -> None:
    assert SANE_ID.fullmatch(offered(anything))
