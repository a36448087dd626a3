"""TensorFlow's messages at start are shown only if an error occurs."""

import os

import pytest

from ckpt_tools.train.graph.quiet import stderr_held


@pytest.mark.parametrize(("raised", "shown"), [(KeyboardInterrupt, ""), (ImportError, "no drivers\n")])
def test_it_is_shown_with_an_error_and_not_after_ctrl_c(capfd, raised, shown):
    with pytest.raises(raised), stderr_held():
        os.write(2, b"no drivers\n")
        raise raised
    assert capfd.readouterr().err == shown
