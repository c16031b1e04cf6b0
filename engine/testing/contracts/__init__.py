"""Contract suites for your own parts: each checks what the pipeline relies on, against the real object.

    from engine.testing import check_tracker

    def test_it_keeps_the_contract_of_a_tracker():
        check_tracker(MyTracker)

A suite is a tuple of checks, so that a test runner can show each on its own:

    @pytest.mark.parametrize("check", TRACKER_CHECKS, ids=name_of)
    def test_contract(check):
        check(MyTracker)

A broken contract raises `ContractError`, an `AssertionError` that says what was expected and what was found.
"""
