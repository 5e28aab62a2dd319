"""Numbers as a person writes them."""

import pytest
from pydantic import ValidationError

from edgestill.search.budget import Budget


@pytest.mark.parametrize(
    ("key", "given", "found"),
    [
        ("max_params", "50k", 50_000), ("max_params", "1.5M", 1_500_000), ("max_flops", "2G", 2 * 10**9),
        ("max_params", "1_000", 1000), ("max_params", 7, 7), ("max_params", "3 B", 3 * 10**9),
        ("max_size_bytes", "200kB", 200_000), ("max_size_bytes", "200 k", 200_000), ("max_size_bytes", "0.5MiB", 2**19),
        ("max_peak_activation_bytes", "1 GB", 10**9), ("max_size_bytes", 12, 12),
        ("max_latency_ms", "5ms", 5.0), ("max_latency_ms", "0.5", 0.5), ("max_latency_ms", 2, 2.0),
    ],
)  # fmt: skip
def test_a_limit_is_read_with_its_multiplier(key: str, given: object, found: float) -> None:
    assert getattr(Budget.model_validate({key: given}), key) == found


@pytest.mark.parametrize(
    ("key", "given", "told"),
    [
        ("max_params", "50q", "'50q' is no whole number here; write it as 50000, 50k or 1.5M"),
        ("max_params", "50,000", "write it as 50000, 50k or 1.5M"),
        ("max_params", "200kB", "write it as 50000, 50k or 1.5M"),
        ("max_params", "1.2345k", "'1.2345k' is 1234.5000, which is no whole number; write 1234"),
        ("max_params", "0k", "greater than or equal to 1"),
        ("max_size_bytes", "2 seconds", "write it as 200000, 200kB or 1.5MB"),
        ("max_latency_ms", "5 s", "valid number"),
    ],
)
def test_a_text_that_is_no_number_is_refused_with_one_that_is(key: str, given: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Budget.model_validate({key: given})
    assert told in str(caught.value)


def test_a_form_still_asks_for_whole_numbers() -> None:
    kinds = [member.get("type") for member in Budget.model_json_schema()["properties"]["max_params"]["anyOf"]]
    assert kinds == ["integer", "null"]
