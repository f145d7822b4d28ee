"""A few of the commands that `python -m tests.torture --only fuzz` types by the thousand."""

import pytest
from hypothesis import HealthCheck, given, settings
from torture import forks, fuzz


@pytest.mark.slow
def test_any_override_completes_or_is_refused_in_one_message() -> None:
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(fuzz.OVERRIDES)
    def each(overrides: list[str]) -> None:
        ended = fuzz.type_in(overrides)
        assert fuzz.is_fine(ended), ended

    with forks.folder():
        each()
