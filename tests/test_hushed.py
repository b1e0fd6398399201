import io
import logging
import sys
import warnings

import pytest
from rich.console import Console

from edgekit.hushed import hushed


def test_prints_log_records_and_warnings_are_kept_back(capsys, caplog):
    with hushed():
        print("out")
        print("err", file=sys.stderr)
        logging.getLogger("torch").error("log")
        warnings.warn("warning", stacklevel=1)
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


def test_progress_that_rich_draws_goes_on(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(stderr=True)
    with hushed(), hushed():
        console.print("step 2")
    assert terminal.getvalue() == "step 2\n"


def test_everything_is_heard_again_after_a_failure(capsys, caplog):
    with pytest.raises(ValueError, match="told"), hushed():
        raise ValueError("told")
    print("out")
    logging.getLogger("torch").error("log")
    assert capsys.readouterr().out == "out\n"
    assert len(caplog.records) == 1
