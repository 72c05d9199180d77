"""What was measured stays true to the digit, and failures stay apart."""

from __future__ import annotations

from loadtest.ledger import Ledger, latency, sum_of, unpack


def test_a_percentile_is_true_to_three_digits() -> None:
    # Locust keeps two significant digits: a true p95 of 2,049 ms reads 2,000 and passes 2 s.
    ledger = Ledger()
    for _ in range(100):
        ledger.answer("GET /", 0.0, intended_ms=2049, service_ms=2049)
    p95 = latency(ledger.total("intended")).percentiles[95.0]
    assert abs(p95 - 2049) < 2.049


def test_failures_do_not_thin_out_latencies() -> None:
    ledger = Ledger()
    for at in range(50):
        ledger.answer("GET /", at, intended_ms=3000, service_ms=3000)
        ledger.fail("GET /", at, kind="503", intended_ms=2)
    figures = latency(ledger.total("intended"))
    assert figures.count == 50
    assert figures.percentiles[50.0] > 2990
    assert ledger.failures == 50


def test_what_was_never_answered_has_failed() -> None:
    ledger = Ledger()
    ledger.begin(1.0, 0.1)
    ledger.abandon("GET /", 1.0, waited_ms=7000)
    assert (ledger.answered, ledger.failures) == (0, 1)
    assert latency(ledger.total("failed")).percentiles[50.0] > 6990


def test_ledgers_of_several_processes_add_up_also_after_a_journey() -> None:
    parts = []
    for number in range(3):
        ledger = Ledger(intended=2, dropped=number)
        ledger.begin(5.0, 1.0)
        ledger.answer("GET /", 5.0, intended_ms=10 * (number + 1), service_ms=5)
        ledger.fail("GET /x", 6.0, kind="500", intended_ms=1)
        parts.append(unpack(ledger.pack()))
    total = sum_of(parts)
    assert (total.intended, total.started, total.dropped, total.failures) == (6, 3, 3, 3)
    assert latency(total.entries["GET /"].intended).highest is not None
    assert total.slots[5].ok == 3
    assert total.slots[6].failed == 3
    assert total.entries["GET /x"].failures == {"500": 3}


def test_the_correction_puts_back_what_a_closed_loop_left_out() -> None:
    # One request a second, and a stall of 10 s: nine more would have begun meanwhile.
    ledger = Ledger()
    ledger.answer("GET /", 0.0, intended_ms=10_000, service_ms=10_000, every_ms=1000)
    entry = ledger.entries["GET /"]
    assert entry.service.get_total_count() == 1
    assert entry.corrected.get_total_count() == 10
