"""The training curve and the sentence that stands for it."""

from mule_lib.curves import as_image, curve_finding, training_curve

LOG = [
    {"step": 2, "loss": 3.0, "loss_obj1": 1.0, "loss_obj2": 2.0},
    {"step": 4, "loss": 1.5, "loss_obj1": 0.5, "loss_obj2": 1.0},
    {"step": 6, "loss": 2.5, "loss_obj1": 0.25, "loss_obj2": 2.25},
]


def test_the_finding_is_in_the_numbers():
    """First and last loss, the way between them, and which terms went along."""
    assert curve_finding(LOG) == "From step 2 to step 6 the loss fell from 3 to 2.5; 1 of its 2 terms fell (obj1)."
    assert curve_finding([LOG[1], LOG[2]]).startswith("From step 4 to step 6 the loss rose from 1.5 to 2.5")
    single = [{"step": 1, "loss": 2.0, "loss_all": 2.0}, {"step": 2, "loss": 1.0, "loss_all": 1.0}]
    assert curve_finding(single) == "From step 1 to step 2 the loss fell from 2 to 1."


def test_the_figure_draws_each_term_in_its_own_style():
    """The sum and every term once, with different colours and styles; one term alone is the sum."""
    figure = training_curve(LOG, title="MULE")
    picture = as_image(figure, alt="It falls.")
    assert picture.data.startswith(b"\x89PNG") and picture.alt == "It falls."
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert set(lines) == {"sum of all terms", "obj1", "obj2"}
    assert list(lines["obj2"].get_ydata()) == [2.0, 1.0, 2.25]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 3
    (axis,) = training_curve([{"step": 1, "loss": 2.0, "loss_all": 2.0}], title="SFT").axes
    assert len(axis.get_lines()) == 1
