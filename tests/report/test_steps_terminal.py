import pytest
from records import HOSTILE

from edgekit.report.steps_terminal import steps_text
from edgekit.result import Change, Route, StepReport

PRUNE = StepReport(
    step="prune",
    params=(23850, 12074),
    macs=(1_511_744, 774_464),
    changes=(
        Change(layer="down.0", what="16 of 32 channels", params=(4640, 2320), macs=(294_912, 147_456)),
        Change(layer="block.0", what="svd, rank 8", params=(9248, 4640), macs=(589_824,) * 2, error=0.1234),
    ),
    notes=("head keeps all channels: it writes an output",),
    seconds=3.21,
)
DISTILL = StepReport(step="distill", params=(12074, 12074), macs=(774_464,) * 2, notes=("kept epoch 1",))

WHOLE = """\
prune: 23,850 to 12,074 parameters (51 %), 1.51 to 0.774 M MACs (51 %), in 3.2 s
layer     what it is now          parameters           M MACs    error
──────────────────────────────────────────────────────────────────────
down.0    16 of 32 channels   4,640 to 2,320   0.295 to 0.147        -
block.0   svd, rank 8         9,248 to 4,640             0.59   12.3 %

- head keeps all channels: it writes an output

distill: the same parameters, the same M MACs
- kept epoch 1"""


def test_each_step_is_shown_with_the_layers_that_it_changed():
    assert steps_text((PRUNE, DISTILL), width=80) == WHOLE


def test_the_routes_of_the_step_on_the_graph_come_last():
    text = steps_text((DISTILL,), [Route(name="nncf", chosen=True, reason="fastest", latency_ratio=2.0)])
    assert text.index("kept epoch 1") < text.index("Routes of quantize") < text.index("nncf")


def test_nothing_done_is_no_text():
    assert steps_text(()) == ""


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_names_from_elsewhere_are_shown_whole_and_printable(width):
    change = Change(layer=HOSTILE, what=HOSTILE, params=(1, 1), macs=(0, 0), error=float("inf"))
    text = steps_text(
        [StepReport(step="prune", params=(0, 0), macs=(0, 0), changes=(change,) * 2)], width=width
    )
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, text.splitlines())) <= width
    assert "very_long" in text.replace("\n", "").replace(" ", "") or width < 40
